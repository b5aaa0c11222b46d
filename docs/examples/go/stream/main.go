// Transcribes headerless audio, 16 kHz 16-bit mono, as a live stream: stream HOST:PORT FILE KEY
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	sttv1 "stt/v1"
)

func main() {
	audio := must(os.Open(os.Args[2]))
	conn := must(grpc.Dial(os.Args[1], grpc.WithInsecure())) // TLS: grpc.WithTransportCredentials
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Args[3])
	stream := must(sttv1.NewSpeechToTextClient(conn).StreamTranscribe(ctx))
	go func() { // the config first, then the audio as it is recorded; here 0.1 s of a file at a time
		format := &sttv1.AudioFormat{Encoding: sttv1.AudioEncoding_AUDIO_ENCODING_LINEAR16, SampleRateHertz: 16000}
		config := &sttv1.StreamTranscribeRequest_Config{Config: &sttv1.StreamConfig{Format: format}}
		stream.Send(&sttv1.StreamTranscribeRequest{Payload: config})
		chunk := make([]byte, 3200)
		for n, err := audio.Read(chunk); err == nil; n, err = audio.Read(chunk) {
			stream.Send(&sttv1.StreamTranscribeRequest{Payload: &sttv1.StreamTranscribeRequest_Audio{Audio: chunk[:n]}})
		}
		stream.CloseSend()
	}()
	for response, err := stream.Recv(); err != io.EOF; response, err = stream.Recv() {
		if final := must(response, err).GetFinal(); final != nil {
			fmt.Println(final.Result.Text)
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatalln(err)
	}
	return value
}
