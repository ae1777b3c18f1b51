package policy

import "fmt"

// Error is a word of an annotation that cannot be followed.
type Error struct {
	Annotation string
	// Word is what is wrong; empty if it is the whole.
	Word   string
	Reason string
}

func (e *Error) Error() string {
	if e.Word == "" {
		return fmt.Sprintf("annotation %s: %s", e.Annotation, e.Reason)
	}
	return fmt.Sprintf("annotation %s: %q: %s", e.Annotation, e.Word, e.Reason)
}

// wrong makes the Error of a word; who knows the annotation adds it. A long word is cut: it goes into events.
func wrong(word, format string, args ...any) *Error {
	const most = 80
	if len(word) > most {
		word = word[:most] + "…"
	}
	return &Error{Word: word, Reason: fmt.Sprintf(format, args...)}
}
