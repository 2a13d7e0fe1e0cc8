// Package colonies calls the Colonies services, and runs functions for them.
//
// A Client signs whatever goes through it, so the stubs (colonies/build/schedulerv1 and its neighbours) take it for a connection:
//
//	client, err := colonies.Dial(settings, key)
//	scheduler := schedulerv1.NewSchedulerServiceClient(client)
//
// An Executor pulls work and runs it with Go functions.
package colonies

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

const (
	maxMessageBytes = 64 << 20
	// A service that asks for one prefix after the other has a fault that should be seen.
	maxPrefixRepeats = 3
)

// Client is a connection on which every call is signed: a grpc.ClientConnInterface. Its calls fail with an *Error.
//
// They are not repeated after an outage: see Retry.
type Client struct {
	Settings
	key  PrivateKey
	conn *grpc.ClientConn

	mu sync.Mutex
	// What nonces begin with, once the cluster has asked for it.
	prefix string
}

var _ grpc.ClientConnInterface = (*Client)(nil)

// Dial makes a client. It connects when the first call is made.
func Dial(settings Settings, key PrivateKey) (*Client, error) {
	if len(key.key) == 0 {
		return nil, errors.New("there is no key to sign with")
	}
	transport, err := settings.transport()
	if err != nil {
		return nil, err
	}
	// Dial, and not NewClient: older versions have only this.
	conn, err := grpc.Dial(settings.Address,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		// A long poll is silent for a minute; pings find out about a dead peer sooner than TCP would.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestBackoff},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, err
	}
	return &Client{Settings: settings, key: key, conn: conn}, nil
}

// Identity is what the services know the caller by.
func (c *Client) Identity() string {
	return c.key.Identity()
}

// Close ends the connection; calls in flight fail.
func (c *Client) Close() error {
	return c.conn.Close()
}

// Invoke makes a unary call; the stubs use it.
func (c *Client) Invoke(ctx context.Context, method string, request, response any, options ...grpc.CallOption) error {
	body, err := serialized(request)
	if err != nil {
		return err
	}
	for repeats := 0; ; repeats++ {
		signed, err := c.signed(ctx, method, body)
		if err != nil {
			return err
		}
		err = errorOf(c.conn.Invoke(signed, method, body, response, options...))
		if repeats == maxPrefixRepeats || !c.mustRepeat(err) {
			return err
		}
	}
}

// NewStream opens a server stream; the stubs use it.
func (c *Client) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if desc.ClientStreams {
		return nil, fmt.Errorf("%s: Colonies has no client streams, for every call is one signed message", method)
	}
	return &stream{client: c, open: func(body []byte) (grpc.ClientStream, error) {
		signed, err := c.signed(ctx, method, body)
		if err != nil {
			return nil, err
		}
		opened, err := c.conn.NewStream(signed, desc, method, options...)
		if err != nil {
			return nil, errorOf(err)
		}
		// A stream that broke already says so when it is read.
		if err := opened.SendMsg(body); err != nil && err != io.EOF {
			return nil, errorOf(err)
		}
		return opened, opened.CloseSend()
	}}, nil
}

// signed is the context with the metadata that makes this call a signed one.
func (c *Client) signed(ctx context.Context, method string, body []byte) (context.Context, error) {
	c.mu.Lock()
	prefix := c.prefix
	c.mu.Unlock()
	nonce, err := newNonce(prefix)
	if err != nil {
		return nil, err
	}
	call, err := c.key.SignCall(CallText{
		Method: method, Audience: c.Cluster, TimeMs: time.Now().UnixNano() / 1e6, Nonce: nonce, Body: body,
	})
	if err != nil {
		return nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, call.Metadata...), nil
}

// mustRepeat tells whether a call failed only because its nonce must have a prefix, which is used from now on.
func (c *Client) mustRepeat(err error) bool {
	failure := failureOf(err)
	if failure == nil || failure.prefixAsked() == "" {
		return false
	}
	c.mu.Lock()
	c.prefix = failure.prefixAsked()
	c.mu.Unlock()
	return true
}

// stream is a server stream that is opened by the request, for the request is signed, and once more if its nonce must have a
// prefix. It is refused before its first message or not at all, so that nothing comes twice.
type stream struct {
	grpc.ClientStream
	client  *Client
	open    func(body []byte) (grpc.ClientStream, error)
	body    []byte
	repeats int
}

func (s *stream) SendMsg(request any) error {
	body, err := serialized(request)
	if err != nil {
		return err
	}
	s.body = body
	s.ClientStream, err = s.open(body)
	return err
}

// CloseSend has nothing left to do: the request is all that a client sends.
func (s *stream) CloseSend() error {
	return nil
}

func (s *stream) RecvMsg(response any) error {
	for {
		err := s.ClientStream.RecvMsg(response)
		if err == nil || err == io.EOF {
			return err
		}
		err = errorOf(err)
		if s.repeats == maxPrefixRepeats || !s.client.mustRepeat(err) {
			return err
		}
		s.repeats++
		if s.ClientStream, err = s.open(s.body); err != nil {
			return err
		}
	}
}

func serialized(request any) ([]byte, error) {
	message, ok := request.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no message", request)
	}
	return proto.Marshal(message)
}

// codec sends requests that were serialised already, so that the bytes that were signed are the bytes that are sent.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(request any) ([]byte, error) {
	body, ok := request.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T was not signed", request)
	}
	return body, nil
}

func (codec) Unmarshal(data []byte, response any) error {
	message, ok := response.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", response)
	}
	return proto.Unmarshal(data, message)
}
