// Package packet takes apart the Ethernet frames that cross the vnet.
//
// Enters: a frame as it came from the guest or from the pod's network, neither of which is trusted. Leaves: a Packet,
// filled in place and without an allocation, or the Reason for which the frame is malformed. A frame is either
// understood down to what a policy decides by or refused: what two parsers could read in two ways (options that route,
// header chains cut in two, lengths that disagree) is malformed here. Must never happen here: a panic, a read beyond the
// frame, or an effort that grows faster than the frame.
package packet
