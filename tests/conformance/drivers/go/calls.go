package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"colonies"
	// Their messages are found by name.
	_ "colonies/build/authv1"
	_ "colonies/build/cronv1"
	_ "colonies/build/registryv1"
)

const defaultTimeout = 30 * time.Second

var errNotConnected = errors.New("connect comes first")

func (d *driver) connect(given command) error {
	key, err := keyOf(given.Seed)
	if err != nil {
		return err
	}
	settings := colonies.Settings{Address: given.Address, Cluster: given.Cluster, Colony: given.Colony, CAFile: given.CAFile}
	client, err := colonies.Dial(settings, key)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client != nil {
		if err := d.client.Close(); err != nil {
			return err
		}
	}
	d.settings, d.key, d.client = settings, key, client
	return nil
}

func (d *driver) connected() (*colonies.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client == nil {
		return nil, errNotConnected
	}
	return d.client, nil
}

// messagesOf are the request of a method, read from JSON, and its empty response.
func messagesOf(given command) (request, response proto.Message, err error) {
	name := strings.ReplaceAll(strings.TrimPrefix(given.Method, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, nil, err
	}
	method, ok := found.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, nil, fmt.Errorf("%s is no method", given.Method)
	}
	messages := make([]proto.Message, 2)
	for index, descriptor := range []protoreflect.MessageDescriptor{method.Input(), method.Output()} {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
		if err != nil {
			return nil, nil, err
		}
		messages[index] = kind.New().Interface()
	}
	if len(given.Request) > 0 {
		err = protojson.Unmarshal(given.Request, messages[0])
	}
	return messages[0], messages[1], err
}

func jsonOf(message proto.Message) (json.RawMessage, error) {
	text, err := protojson.Marshal(message)
	return json.RawMessage(text), err
}

func (d *driver) call(given command) (object, error) {
	client, err := d.connected()
	if err != nil {
		return nil, err
	}
	request, response, err := messagesOf(given)
	if err != nil {
		return nil, err
	}
	timeout := defaultTimeout
	if given.TimeoutMs > 0 {
		timeout = time.Duration(given.TimeoutMs) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := client.Invoke(ctx, given.Method, request, response); err != nil {
		return nil, err
	}
	text, err := jsonOf(response)
	return object{"response": text}, err
}

// stream is a stream that is read.
type stream struct {
	client *colonies.Client
	ctx    context.Context
	cancel context.CancelFunc
}

// stream takes note of a stream, and checks what it is about.
func (d *driver) stream(given command) error {
	client, err := d.connected()
	if err != nil {
		return err
	}
	if _, _, err = messagesOf(given); err != nil {
		return err
	}
	begun := stream{client: client}
	begun.ctx, begun.cancel = context.WithCancel(context.Background())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams[given.Stream] = begun
	return nil
}

// read opens a stream and tells its messages, to its end.
func (d *driver) read(given command, begun stream) {
	defer begun.cancel()
	end := object{"event": "end", "stream": given.Stream}
	if err := d.readAll(begun.ctx, begun.client, given); err != nil && begun.ctx.Err() == nil {
		end["error"] = errorObject(err)
	}
	d.mu.Lock()
	delete(d.streams, given.Stream)
	d.mu.Unlock()
	d.write(end)
}

func (d *driver) readAll(ctx context.Context, client *colonies.Client, given command) error {
	request, _, err := messagesOf(given)
	if err != nil {
		return err
	}
	stream, err := client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, given.Method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	for {
		_, message, err := messagesOf(given)
		if err != nil {
			return err
		}
		if err := stream.RecvMsg(message); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		text, err := jsonOf(message)
		if err != nil {
			return err
		}
		d.write(object{"event": "message", "stream": given.Stream, "message": text})
	}
}

func (d *driver) endStream(given command) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	begun, known := d.streams[given.Stream]
	if !known {
		return fmt.Errorf("there is no stream %q", given.Stream)
	}
	begun.cancel()
	return nil
}
