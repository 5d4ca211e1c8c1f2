package engine

import (
	"context"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"dunnage/internal/fault"
)

// asks are the beginnings of the methods that change nothing.
var asks = []string{"Get", "Info", "List", "Mounts", "Plugins", "Stat", "Usage", "Version", "Wait", "Metrics", "Read"}

// points passes the fault points of every call to containerd that may change
// something, under the name of its service and method: "Tasks/Create".
func points(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	call := func() error { return invoke(ctx, method, req, reply, cc, opts...) }
	service, name := path.Split(method)
	if !fault.On || slices.ContainsFunc(asks, func(ask string) bool { return strings.HasPrefix(name, ask) }) {
		return call()
	}
	service = strings.TrimSuffix(service, "/")
	return fault.Do(service[strings.LastIndexByte(service, '.')+1:]+"/"+name, call)
}
