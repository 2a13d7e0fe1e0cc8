package colonies

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"colonies/build/statusv1"
)

const (
	googleRPC = "type.googleapis.com/google.rpc."
	// Each try of a call that is repeated.
	callTimeout  = 30 * time.Second
	firstBackoff = 50 * time.Millisecond
	// An executor should not sit out minutes after an outage.
	longestBackoff = 2 * time.Second
)

var noncePrefix = regexp.MustCompile(`^[0-9a-f]{16}$`)

// FieldViolation is a field of the request that broke its bound.
type FieldViolation struct {
	Field       string
	Description string
}

// Error is what a failed call returns; errors.As finds it.
type Error struct {
	Code    codes.Code
	Message string
	// A constant for programs, such as ATTEMPT_SUPERSEDED, and what goes with it.
	Reason   string
	Metadata map[string]string
	// The fields that were out of bounds.
	Fields []FieldViolation
	// When to try again, if the server said so.
	RetryDelay time.Duration
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s", e.Code, e.Message)
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	return text
}

// GRPCStatus is the status without its details, for programs that look for one.
func (e *Error) GRPCStatus() *status.Status {
	return status.New(e.Code, e.Message)
}

// errorOf is the error for what gRPC returned.
func errorOf(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	told, ok := status.FromError(err)
	if !ok {
		told = status.FromContextError(err)
	}
	failure := &Error{Code: told.Code(), Message: told.Message()}
	for _, detail := range told.Proto().GetDetails() {
		failure.add(detail.GetTypeUrl(), detail.GetValue())
	}
	return failure
}

// add takes in one detail. Those that are not ours add nothing; code and message still say what happened.
func (e *Error) add(typeURL string, value []byte) {
	switch strings.TrimPrefix(typeURL, googleRPC) {
	case "ErrorInfo":
		info := &statusv1.ErrorInfo{}
		if proto.Unmarshal(value, info) == nil {
			e.Reason, e.Metadata = info.Reason, info.Metadata
		}
	case "BadRequest":
		bad := &statusv1.BadRequest{}
		if proto.Unmarshal(value, bad) == nil {
			for _, one := range bad.FieldViolations {
				e.Fields = append(e.Fields, FieldViolation{one.Field, one.Description})
			}
		}
	case "RetryInfo":
		retry := &statusv1.RetryInfo{}
		if proto.Unmarshal(value, retry) == nil {
			e.RetryDelay = retry.RetryDelay.AsDuration()
		}
	}
}

// failureOf is the failed call in an error; nil if it is none.
func failureOf(err error) *Error {
	var failure *Error
	if errors.As(err, &failure) {
		return failure
	}
	return nil
}

// isOutage tells whether a failed call says that the server is out of reach, and not that it refused.
func (e *Error) isOutage() bool {
	switch e.Code {
	// No Colonies service says CANCELLED or UNKNOWN: a proxy or a dying server has broken the call off.
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown:
		return true
	case codes.Internal:
		// A reset of the HTTP/2 stream under a call; only its text tells it from a real fault.
		return strings.Contains(e.Message, "RST_STREAM")
	}
	return false
}

// isPace tells whether it is only how often this caller calls: the same call gets through later.
func (e *Error) isPace() bool {
	return e.Code == codes.ResourceExhausted && (e.Reason == "RATE_LIMITED" || e.Reason == "TOO_MANY_STREAMS")
}

// isAboutApproval tells whether it is the approval of an executor that is missing, be it for a moment or for good.
func (e *Error) isAboutApproval() bool {
	return e.Code == codes.PermissionDenied || e.Reason == "EXECUTOR_NOT_APPROVED"
}

// prefixAsked is the prefix that nonces must have from now on; empty if the call failed for another reason.
func (e *Error) prefixAsked() string {
	prefix := e.Metadata["nonce_prefix"]
	if e.Code == codes.Unauthenticated && e.Reason == "NONCE_PREFIX_REQUIRED" && noncePrefix.MatchString(prefix) {
		return prefix
	}
	return ""
}

// Retry makes a call again while the server is out of reach or asks to call less often, until the context ends; each try has 30 s
// and is signed anew. Every RPC may be repeated: submits have a request id, closes are fenced, the others set a state.
func Retry(ctx context.Context, call func(context.Context) error) error {
	var wait backoff
	for {
		try, cancel := context.WithTimeout(ctx, callTimeout)
		err := call(try)
		cancel()
		failure := failureOf(err)
		if failure == nil || !(failure.isOutage() || failure.isPace()) {
			return err
		}
		if !wait.sleep(ctx, failure.RetryDelay) {
			return err
		}
	}
}

// backoff is waiting times that grow, with jitter, so that the clients of a restarted server do not come back all at once.
type backoff struct{ tries uint }

// sleep waits, never shorter than asked for; false if the context ended first.
func (b *backoff) sleep(ctx context.Context, atLeast time.Duration) bool {
	wait := longestBackoff
	if b.tries < 16 && firstBackoff<<b.tries < longestBackoff {
		wait = firstBackoff << b.tries
	}
	b.tries++
	var random [1]byte
	if _, err := rand.Read(random[:]); err != nil {
		return false
	}
	wait -= wait / 2 * time.Duration(random[0]) / 255
	if wait < atLeast {
		wait = atLeast
	}
	return sleep(ctx, wait)
}

func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
