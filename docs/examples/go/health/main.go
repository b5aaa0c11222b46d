// Prints whether a service is ready: health HOST:PORT
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	conn, err := grpc.Dial(os.Args[1], grpc.WithInsecure()) // TLS: grpc.WithTransportCredentials
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request := &grpc_health_v1.HealthCheckRequest{Service: "stt.v1.SpeechToText"}
	response, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.Status)
}
