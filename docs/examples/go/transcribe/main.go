// Transcribes one recording: transcribe HOST:PORT FILE KEY
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // the types of an error's details
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	sttv1 "stt/v1"
)

func main() {
	audio := must(os.ReadFile(os.Args[2]))
	conn := must(grpc.Dial(os.Args[1], grpc.WithInsecure())) // TLS: grpc.WithTransportCredentials
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Args[3], "x-req-id", "example-1")
	var trailer metadata.MD
	response := must(sttv1.NewSpeechToTextClient(conn).Transcribe(ctx, &sttv1.TranscribeRequest{Audio: audio},
		grpc.Trailer(&trailer), grpc.MaxCallRecvMsgSize(64<<20))) // word times of a long recording exceed 4 MiB
	fmt.Println("text:", response.Text)
	fmt.Println("x-req-id:", trailer.Get("x-req-id")[0])
	fmt.Println("x-final-model:", trailer.Get("x-final-model")[0])
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatalln(err, status.Convert(err).Details())
	}
	return value
}
