package policy

import "strings"

// Bounds of a DNS name: RFC 1035 section 2.3.4, without the final dot.
const (
	maxName  = 253
	maxLabel = 63
)

const wildcard = "*."

// parseName checks a name or a pattern and puts it into the form of Rule.Name.
func parseName(word string) (string, *Error) {
	name := strings.ToLower(strings.TrimSuffix(word, "."))
	suffix, isPattern := strings.CutPrefix(name, wildcard)
	if strings.Contains(suffix, "*") {
		return "", wrong(word, "a star stands for whole labels at the start alone, as in *.example.org; for everything say any")
	}
	if len(suffix) > maxName {
		return "", wrong(word, "is longer than the %d bytes of a DNS name", maxName)
	}
	labels := strings.Split(suffix, ".")
	for _, label := range labels {
		if reason := badLabel(label); reason != "" {
			return "", wrong(word, "is neither an address nor a DNS name: %s", reason)
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "", wrong(word, "is neither an address nor a DNS name: its last label is a number")
	}
	if len(labels) == 1 && !isPattern {
		return "", wrong(word, "has one label: write the whole name that is asked for, as in db.default.svc.cluster.local")
	}
	return name, nil
}

// badLabel says what is wrong with a label in lower case. Underscores are in use, as in _tcp.
func badLabel(label string) string {
	if label == "" {
		return "a label is empty"
	}
	if len(label) > maxLabel {
		return "a label is longer than 63 bytes"
	}
	for i := range len(label) {
		c := label[i]
		if c >= 0x80 {
			return "write it in ASCII, as xn--…"
		}
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return "only letters, digits, - and _ may be in it"
		}
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return "a label begins or ends with -"
	}
	return ""
}

// NameSet finds the rules that a DNS name is named by. It does not change and may be used by several goroutines.
type NameSet struct {
	exact, below map[string][]int
}

// NameSet indexes the rules with names.
func (p *Policy) NameSet() *NameSet {
	s := &NameSet{exact: map[string][]int{}, below: map[string][]int{}}
	for i, r := range p.Rules {
		if suffix, ok := strings.CutPrefix(r.Name, wildcard); ok {
			s.below[suffix] = append(s.below[suffix], i)
		} else if r.Name != "" {
			s.exact[r.Name] = append(s.exact[r.Name], i)
		}
	}
	return s
}

// Match appends to rules the indexes of the rules that name a name, which is in lower case without a final dot. A
// pattern covers all names below its suffix, at any depth, and not the suffix itself.
func (s *NameSet) Match(name string, rules []int) []int {
	rules = append(rules, s.exact[name]...)
	for {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return rules
		}
		name = rest
		rules = append(rules, s.below[name]...)
	}
}
