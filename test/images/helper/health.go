package main

import (
	"context"
	"errors"
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

// health answers gRPC health checks (grpc.health.v1) on a port: healthy as long as a file is there.
func health(args []string) error {
	if len(args) != 2 {
		return errors.New("health PORT FILE")
	}
	listener, err := net.Listen("tcp", ":"+args[0])
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, server{file: args[1]})
	return s.Serve(listener)
}
