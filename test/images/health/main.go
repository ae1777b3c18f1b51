// Command health answers gRPC health checks (grpc.health.v1) on a port, for the probes of the cluster's tests: healthy as long as
// the file is there.
package main

import (
	"context"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

type server struct {
	healthpb.UnimplementedHealthServer
	file string
}

func (s server) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	status := healthpb.HealthCheckResponse_SERVING
	if _, err := os.Stat(s.file); err != nil {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: status}, nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: health PORT FILE")
	}
	listener, err := net.Listen("tcp", ":"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, server{file: os.Args[2]})
	log.Fatal(s.Serve(listener))
}
