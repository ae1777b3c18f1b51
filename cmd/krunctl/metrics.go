package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"github.com/spf13/cobra"

	"krun.dev/krunpod/metrics"
	"krun.dev/krunpod/shim"
)

// requestTimeout bounds each part of a scrape, whoever asks.
const requestTimeout = 10 * time.Second

func (a *app) metrics() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print Prometheus metrics of this node's sandboxes, or serve them",
		Long: "Print Prometheus metrics of this node's sandboxes, as the node exporter's textfile collector reads them.\n" +
			"With --listen, serve them at /metrics instead, until a signal ends it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			registry := prometheus.NewRegistry()
			if err := registry.Register(&metrics.Collector{State: a.cfg.State, Version: shim.Version}); err != nil {
				return err
			}
			if listen == "" {
				return printMetrics(registry)
			}
			return serveMetrics(cmd.Context(), registry, listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address and port to serve at, such as 127.0.0.1:9464 or [::]:9464")
	return cmd
}

func printMetrics(registry *prometheus.Registry) error {
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(os.Stdout, f); err != nil {
			return err
		}
	}
	return nil
}

func serveMetrics(ctx context.Context, registry *prometheus.Registry, address string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--listen %q: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: requestTimeout}))
	server := &http.Server{Handler: mux, ReadTimeout: requestTimeout, WriteTimeout: 2 * requestTimeout, MaxHeaderBytes: 16 << 10}
	fmt.Fprintf(os.Stderr, "krunctl: serving http://%s/metrics\n", listener.Addr())
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
