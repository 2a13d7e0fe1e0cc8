package colonies

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"colonies/build/schedulerv1"
	"colonies/build/statusv1"
)

// handOf is a hand whose executor has a function that holds until it is told to stop; nothing is sent to anybody.
func handOf(t *testing.T) (h *hand, began, dropped chan string) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(Settings{Address: "127.0.0.1:1", Cluster: "c", Colony: "dev"}, key)
	if err != nil {
		t.Fatal(err)
	}
	began, dropped = make(chan string, 10), make(chan string, 10)
	executor := NewExecutor(client, "e", "edge")
	executor.Concurrency = 2
	executor.Logf = t.Logf
	executor.OnDrop = func(call *Call, reason schedulerv1.DropReason) {
		dropped <- fmt.Sprintf("%s %d %s", call.ProcessId, call.Attempt, reason)
	}
	executor.Function("hold", func(ctx context.Context, call *Call) (Outputs, error) {
		began <- fmt.Sprintf("%s %d", call.ProcessId, call.Attempt)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	h = newHand(executor)
	t.Cleanup(func() {
		h.cancel()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, began, dropped
}

func assignment(process string, attempt int32) *schedulerv1.Assignment {
	return &schedulerv1.Assignment{
		ProcessId: process, Attempt: attempt, LeaseMs: 9000, Spec: &schedulerv1.FunctionSpec{FuncName: "hold"},
	}
}

func expect(t *testing.T, from chan string, text string) {
	t.Helper()
	select {
	case got := <-from:
		if got != text {
			t.Errorf("%q, not %q", got, text)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no %q", text)
	}
}

func TestAnAttemptThatComesAgainIsNotRunAgain(t *testing.T) {
	h, began, dropped := handOf(t)
	h.take(assignment("p", 1))
	h.take(assignment("p", 1))
	expect(t, began, "p 1")
	h.drop(h.held["p"], cancelled)
	expect(t, dropped, "p 1 DROP_REASON_CANCELLED")
	h.take(assignment("p", 1))
	if len(h.all()) != 0 {
		t.Error("what had ended was taken again")
	}
	h.take(assignment("p", 2))
	expect(t, began, "p 2")
}

func TestALaterAttemptTakesThePlaceOfAnEarlierOne(t *testing.T) {
	h, began, dropped := handOf(t)
	h.take(assignment("p", 1))
	expect(t, began, "p 1")
	h.take(assignment("p", 3))
	expect(t, dropped, "p 1 DROP_REASON_SUPERSEDED")
	expect(t, began, "p 3")
	h.take(assignment("p", 2))
	if got := h.all(); len(got) != 1 || got[0].Attempt != 3 {
		t.Errorf("%v", got)
	}
}

func TestAnAttemptEndsWhenItsTimeIsOver(t *testing.T) {
	h, _, dropped := handOf(t)
	limited := assignment("p", 1)
	limited.Spec.MaxExecTimeMs = 20
	h.take(limited)
	expect(t, dropped, "p 1 DROP_REASON_SUPERSEDED")
}

func TestNoMoreRunThanThereArePlacesFor(t *testing.T) {
	h, began, _ := handOf(t)
	for _, process := range []string{"a", "b", "c"} {
		h.take(assignment(process, 1))
	}
	first, second := <-began, <-began
	select {
	case third := <-began:
		t.Fatalf("%s runs beside %s and %s", third, first, second)
	case <-time.After(50 * time.Millisecond):
	}
	h.drop(h.held[first[:1]], superseded)
	<-began
}

func TestHeartbeatsAreAboutAllAndInBetweenAboutWhatIsFresh(t *testing.T) {
	h, _, _ := handOf(t)
	h.take(assignment("a", 1))
	h.take(assignment("b", 1))
	h.held["a"].confirmed = true
	refs, interval, all := h.due(time.Now())
	if len(refs) != 1 || refs[0].ProcessId != "b" || interval != 3*time.Second || all {
		t.Errorf("%v, %v, %v", refs, interval, all)
	}
	if refs, _, all := h.due(time.Now().Add(-interval)); len(refs) != 2 || !all {
		t.Errorf("%v, %v", refs, all)
	}
}

func TestOutcomes(t *testing.T) {
	h, _, _ := handOf(t)
	h.functions = map[string]Func{
		"good": func(_ context.Context, call *Call) (Outputs, error) {
			return Outputs{call.Args[0], call.Kwargs["k"]}, nil
		},
		"bad": func(context.Context, *Call) (Outputs, error) { return nil, errors.New("no") },
		"again": func(context.Context, *Call) (Outputs, error) {
			return nil, fmt.Errorf("x: %w", Retryable(errors.New("no")))
		},
		"panic": func(context.Context, *Call) (Outputs, error) { panic("oh") },
		"chan":  func(context.Context, *Call) (Outputs, error) { return Outputs{make(chan int)}, nil },
	}
	for _, one := range []struct {
		name, argument, says string
		retryable            bool
	}{
		{"good", `1`, "", false},
		{"bad", `1`, "no", false},
		{"again", `1`, "x: no", true},
		{"panic", `1`, "panic: oh", false},
		{"chan", `1`, "its result cannot be sent: value 1", false},
		{"good", `[`, "argument 1: cannot decode", false},
		{"nobody", `1`, "no function \"nobody\"; it has: again, bad", false},
	} {
		given := assignment("p", 1)
		given.Spec = &schedulerv1.FunctionSpec{
			FuncName: one.name,
			Args:     []*schedulerv1.Value{{Data: []byte(one.argument)}},
			Kwargs:   map[string]*schedulerv1.Value{"k": {Data: []byte(`[2]`)}},
		}
		outcome := &schedulerv1.Close{}
		h.run(&held{Call: &Call{Assignment: given}, ctx: context.Background()}, outcome)
		failure := outcome.GetFailure()
		if one.says == "" {
			if got := outcome.GetSuccess().GetOutputs(); len(got) != 2 || string(got[1].Data) != "[2]" {
				t.Errorf("%s: %v", one.name, outcome)
			}
		} else if failure == nil || !strings.HasPrefix(failure.Errors[0], one.says) && !strings.Contains(failure.Errors[0], one.says) {
			t.Errorf("%s: %v", one.name, outcome)
		} else if failure.Retryable != one.retryable {
			t.Errorf("%s: retryable is %v", one.name, failure.Retryable)
		}
	}
}

func TestAResultThatCannotBeWrittenBecomesAFailure(t *testing.T) {
	h, _, _ := handOf(t)
	one := &held{Call: &Call{Assignment: assignment("p", 1)}}
	one.wanted, one.unwanted = context.WithCancel(h.ctx)
	h.Logf = func(format string, args ...any) {
		if said := fmt.Sprintf(format, args...); !strings.Contains(said, "was refused") {
			t.Error(said)
		}
		one.unwanted() // the failure would be sent for ever: there is no server
	}
	outcome := &schedulerv1.Close{Attempt: one.Ref(), Outcome: &schedulerv1.Close_Success_{Success: &schedulerv1.Close_Success{
		Outputs: []*schedulerv1.Value{{MediaType: "\xff"}},
	}}}
	h.close(one, outcome)
	if failure := outcome.GetFailure(); failure == nil || !strings.HasPrefix(failure.Errors[0], "its result was refused") {
		t.Errorf("%v", outcome)
	}
}

func TestErrorTextsAreBounded(t *testing.T) {
	long := bounded(strings.Repeat("é", maxErrorBytes))
	if len(long) > maxErrorBytes || !utf8.ValidString(long) || !strings.HasSuffix(long, "(cut)") {
		t.Errorf("%d bytes", len(long))
	}
	if got := bounded("a\xffb"); got != "ab" {
		t.Errorf("%q", got)
	}
}

func TestDetailsOfErrors(t *testing.T) {
	failure := &Error{Code: codes.Unauthenticated, Message: "no"}
	for name, message := range map[string]proto.Message{
		"ErrorInfo": &statusv1.ErrorInfo{
			Reason: "NONCE_PREFIX_REQUIRED", Metadata: map[string]string{"nonce_prefix": "0123456789abcdef"},
		},
		"BadRequest": &statusv1.BadRequest{
			FieldViolations: []*statusv1.BadRequest_FieldViolation{{Field: "name", Description: "too long"}},
		},
		"RetryInfo": &statusv1.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)},
		"Other":     &statusv1.ErrorInfo{Reason: "OTHER"},
	} {
		value, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		failure.add(googleRPC+name, value)
	}
	failure.add(googleRPC+"ErrorInfo", []byte("\xff"))
	if failure.Reason != "NONCE_PREFIX_REQUIRED" || failure.RetryDelay != 2*time.Second ||
		len(failure.Fields) != 1 || failure.Fields[0] != (FieldViolation{"name", "too long"}) {
		t.Errorf("%+v", failure)
	}
	if failure.prefixAsked() != "0123456789abcdef" {
		t.Error("the prefix was not seen")
	}
	for _, wrong := range []string{"", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef\n"} {
		failure.Metadata["nonce_prefix"] = wrong
		if failure.prefixAsked() != "" {
			t.Errorf("%q was taken for a prefix", wrong)
		}
	}
}

func TestWhichFailuresPass(t *testing.T) {
	for _, one := range []struct {
		failure      Error
		outage, pace bool
	}{
		{Error{Code: codes.Unavailable}, true, false},
		{Error{Code: codes.Unknown}, true, false},
		{Error{Code: codes.Internal, Message: "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"}, true, false},
		{Error{Code: codes.Internal}, false, false},
		{Error{Code: codes.InvalidArgument}, false, false},
		{Error{Code: codes.ResourceExhausted, Reason: "RATE_LIMITED"}, false, true},
		{Error{Code: codes.ResourceExhausted, Reason: "QUEUE_FULL"}, false, false},
	} {
		if one.failure.isOutage() != one.outage || one.failure.isPace() != one.pace {
			t.Errorf("%v", &one.failure)
		}
	}
}

func TestWhichRefusalsAreAboutTheApproval(t *testing.T) {
	for _, one := range []struct {
		failure  Error
		approval bool
	}{
		{Error{Code: codes.PermissionDenied, Reason: "EXECUTOR_NOT_APPROVED"}, true},
		{Error{Code: codes.PermissionDenied, Reason: "NOT_A_MEMBER"}, true},
		{Error{Code: codes.FailedPrecondition, Reason: "EXECUTOR_NOT_APPROVED"}, true},
		{Error{Code: codes.FailedPrecondition, Reason: "EXECUTOR_REJECTED"}, false},
	} {
		if one.failure.isAboutApproval() != one.approval {
			t.Errorf("%v", &one.failure)
		}
	}
}

func TestRetryGoesOnUntilTheCallPassesOrTheContextEnds(t *testing.T) {
	tries := 0
	err := Retry(context.Background(), func(context.Context) error {
		if tries++; tries < 3 {
			return &Error{Code: codes.Unavailable}
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Errorf("%v after %d tries", err, tries)
	}
	if err := Retry(context.Background(), func(context.Context) error { return &Error{Code: codes.NotFound} }); err == nil {
		t.Error("a refusal was lost")
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = Retry(ctx, func(context.Context) error {
		cancel()
		return &Error{Code: codes.Unavailable}
	})
	if failureOf(err) == nil {
		t.Errorf("%v", err)
	}
}
