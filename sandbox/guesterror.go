package sandbox

import (
	"context"
	"slices"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
)

// maxGuestError bounds what a guest may say when it refuses a call, in bytes.
const maxGuestError = 2 << 10

// guestCodes are the codes by which callers decide that an agent can mean. Unavailable, for one, is a guest that is gone.
var guestCodes = []codes.Code{codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
	codes.Unimplemented, codes.DeadlineExceeded, codes.Canceled}

// boundErrors is the interceptor of all calls to the agent: what comes back as an error goes on to containerd, its log,
// the kubelet and a pod's events, so it is a known code and a line of text.
func boundErrors(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, _ *ttrpc.UnaryClientInfo, call ttrpc.Invoker) error {
	if err := call(ctx, req, resp); err != nil {
		return err
	}
	if st := resp.GetStatus(); st != nil && codes.Code(st.Code) != codes.OK {
		st.Message, st.Details = clip(st.Message, maxGuestError), nil
		if !slices.Contains(guestCodes, codes.Code(st.Code)) {
			st.Code = int32(codes.Unknown)
		}
	}
	return nil
}
