package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Annotations of a pod.
const (
	// AnnotationRules holds statements in the syntax of parseStatement, separated by lines or semicolons.
	AnnotationRules = "krun.dev/network-policy"
	// AnnotationEgressAllow is the short form for what most pods need: targets with ports, separated by commas.
	AnnotationEgressAllow = "krun.dev/egress-allow"
)

// Bounds on what a pod's owner may write: a new connection may be held against every rule.
const (
	maxText  = 16 << 10 // bytes of an annotation
	maxRules = 256
	maxPorts = 16 // ranges of a rule
)

// anyone is the target that is every address.
const anyone = "any"

// Parse reads the policy of a pod from its annotations; nil if they hold none. An error is an *Error.
func Parse(annotations map[string]string) (*Policy, error) {
	rules, hasRules := annotations[AnnotationRules]
	short, hasShort := annotations[AnnotationEgressAllow]
	if !hasRules && !hasShort {
		return nil, nil
	}
	b := new(builder)
	if hasRules {
		if err := b.parse(rules, b.parseRules); err != nil {
			err.Annotation = AnnotationRules
			return nil, err
		}
	}
	if hasShort {
		if err := b.parse(short, b.parseShort); err != nil {
			err.Annotation = AnnotationEgressAllow
			return nil, err
		}
	}
	p, err := b.finish()
	if err != nil {
		err.Annotation = AnnotationRules
		return nil, err
	}
	return p, nil
}

// builder collects what the annotations say.
type builder struct {
	rules  []Rule
	stated [directions]bool
	action [directions]Action
}

func (b *builder) parse(text string, parse func(string) *Error) *Error {
	if len(text) > maxText {
		return wrong("", "%d bytes, the most is %d", len(text), maxText)
	}
	before := *b
	if err := parse(text); err != nil {
		return err
	}
	if len(b.rules) == len(before.rules) && b.stated == before.stated {
		return wrong("", "it is empty: write what is allowed, or remove it")
	}
	return nil
}

func (b *builder) add(r Rule) *Error {
	if len(b.rules) == maxRules {
		return wrong(r.String(), "more than %d rules: use address ranges or patterns of names", maxRules)
	}
	b.rules = append(b.rules, r)
	return nil
}

// finish puts the defaults in: a direction in which something is allowed denies the rest, any other allows it.
func (b *builder) finish() (*Policy, *Error) {
	p := &Policy{Rules: b.rules}
	for d := range p.Default {
		allows := slices.ContainsFunc(b.rules, func(r Rule) bool { return r.Direction == Direction(d) && r.Action == Allow })
		switch {
		case b.stated[d]:
			p.Default[d] = b.action[d]
		case !allows:
			p.Default[d] = Allow
		}
	}
	if p.Names() && p.Default[Egress] == Allow {
		return nil, wrong("default egress allow", "a name is allowed, and so is everything else: remove one of the two")
	}
	return p, nil
}

// parseRules reads statements: see parseStatement.
func (b *builder) parseRules(text string) *Error {
	statements := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ';' })
	for _, s := range statements {
		if words := strings.Fields(s); len(words) > 0 {
			if err := b.parseStatement(words); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseStatement reads one of
//
//	ACTION DIRECTION [PROTOCOL] TARGET [PORTS]
//	default DIRECTION ACTION
//
// where ACTION is allow or deny, DIRECTION egress or ingress, PROTOCOL any (which may be left out), tcp, udp or icmp,
// TARGET any, an address, an address range in CIDR notation or, for what is allowed as egress, a DNS name or
// *.SUFFIX, and PORTS numbers and ranges FIRST-LAST separated by commas.
func (b *builder) parseStatement(words []string) *Error {
	if words[0] == "default" {
		return b.parseDefault(words)
	}
	var r Rule
	action := slices.Index(actionNames[:], words[0])
	if action < 0 {
		return wrong(words[0], "a statement begins with allow, deny or default")
	}
	if len(words) < 3 {
		return wrong(strings.Join(words, " "), "the rule has no target: write DIRECTION [PROTOCOL] TARGET [PORTS] after %s", words[0])
	}
	direction := slices.Index(directionNames[:], words[1])
	if direction < 0 {
		return wrong(words[1], "is neither egress nor ingress")
	}
	r.Action, r.Direction = Action(action), Direction(direction)
	rest := words[2:]
	// "any" alone, or before what can only be ports, is the target.
	protocol := slices.Index(protocolNames[:], rest[0])
	if protocol >= 0 && (Protocol(protocol) != Any || (len(rest) > 1 && !looksLikePorts(rest[1]))) {
		r.Protocol, rest = Protocol(protocol), rest[1:]
	}
	if len(rest) == 0 {
		return wrong(strings.Join(words, " "), "the rule has no target after its protocol")
	}
	if err := r.parseTarget(rest[0]); err != nil {
		return err
	}
	if len(rest) > 2 {
		return wrong(rest[2], "follows the ports: statements are separated by lines or semicolons, ports by commas alone")
	}
	if len(rest) == 2 {
		if err := r.parsePorts(rest[1]); err != nil {
			return err
		}
	}
	if err := r.check(); err != nil {
		return err
	}
	return b.add(r)
}

func looksLikePorts(word string) bool {
	return strings.Trim(word, "0123456789,-") == ""
}

func (b *builder) parseDefault(words []string) *Error {
	if len(words) != 3 {
		return wrong(strings.Join(words, " "), "write default DIRECTION ACTION")
	}
	direction := slices.Index(directionNames[:], words[1])
	if direction < 0 {
		return wrong(words[1], "is neither egress nor ingress")
	}
	action := slices.Index(actionNames[:], words[2])
	if action < 0 {
		return wrong(words[2], "is neither allow nor deny")
	}
	if b.stated[direction] {
		return wrong(strings.Join(words, " "), "the default of %s is there twice", words[1])
	}
	b.stated[direction], b.action[direction] = true, Action(action)
	return nil
}

// check looks at what the parts of a rule say together.
func (r *Rule) check() *Error {
	if r.Name != "" && (r.Action != Allow || r.Direction != Egress) {
		return wrong(r.Name, "a name can only be allowed, as egress: its address can be reached under other names too")
	}
	if r.Protocol == ICMP && len(r.Ports) > 0 {
		return wrong(r.Ports[0].String(), "icmp has no ports")
	}
	return nil
}

// parseShort reads targets with or without ports: NAME, NAME:PORT, ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, and CIDR in
// the place of ADDRESS.
func (b *builder) parseShort(text string) *Error {
	for _, entry := range strings.Split(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			return wrong("", "there is nothing between two commas, or at an end")
		}
		r := Rule{Action: Allow, Direction: Egress}
		target, ports, hasPorts, err := splitPorts(entry)
		if err != nil {
			return err
		}
		if err := r.parseTarget(target); err != nil {
			return err
		}
		if hasPorts {
			if err := r.parsePorts(ports); err != nil {
				return err
			}
		}
		if err := b.add(r); err != nil {
			return err
		}
	}
	return nil
}

// splitPorts cuts an entry of the short form at the colon that is not part of an IPv6 address.
func splitPorts(entry string) (target, ports string, hasPorts bool, err *Error) {
	if rest, ok := strings.CutPrefix(entry, "["); ok {
		target, ports, ok := strings.Cut(rest, "]")
		if !ok {
			return "", "", false, wrong(entry, "a bracket is not closed")
		}
		if ports == "" {
			return target, "", false, nil
		}
		if ports, ok = strings.CutPrefix(ports, ":"); !ok {
			return "", "", false, wrong(entry, "after the bracket comes a colon and the port")
		}
		return target, ports, true, nil
	}
	if strings.Contains(entry, "://") {
		return "", "", false, wrong(entry, "is a URL: write its name and port alone, as in api.example.org:443")
	}
	if strings.Count(entry, ":") != 1 {
		return entry, "", false, nil // none, or an IPv6 address
	}
	target, ports, _ = strings.Cut(entry, ":")
	return target, ports, true, nil
}

func (r *Rule) parseTarget(word string) *Error {
	if word == anyone {
		return nil
	}
	if strings.Contains(word, "/") {
		return r.parseRange(word)
	}
	if a, err := netip.ParseAddr(word); err == nil {
		if a.Zone() != "" || a.Is4In6() {
			return wrong(word, "write the address without a zone, an IPv4 address in its own notation")
		}
		r.Peer = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	name, err := parseName(word)
	if err != nil {
		return err
	}
	r.Name = name
	return nil
}

func (r *Rule) parseRange(word string) *Error {
	p, err := netip.ParsePrefix(word)
	if err != nil || p.Addr().Is4In6() {
		return wrong(word, "is not an address range in CIDR notation")
	}
	if p != p.Masked() {
		return wrong(word, "has bits beyond its prefix: write %s, or the address alone", p.Masked())
	}
	r.Peer = p
	return nil
}

func (r *Rule) parsePorts(word string) *Error {
	for _, part := range strings.Split(word, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, ok1 := parsePort(first)
		to, ok2 := parsePort(last)
		if !ok1 || !ok2 || from > to {
			return wrong(part, "is neither a port from 1 to 65535 nor a range FIRST-LAST")
		}
		if len(r.Ports) == maxPorts {
			return wrong(part, "more than %d ports or ranges in one rule", maxPorts)
		}
		r.Ports = append(r.Ports, Ports{from, to})
	}
	return nil
}

func parsePort(s string) (uint16, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false // ParseUint takes no sign, but this says so
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n != 0
}
