package colonies

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc/codes"

	"colonies/build/schedulerv1"
)

const maxErrorBytes = 8 << 10

// work runs an attempt's function, when there is a place for it, and sends its result.
func (h *hand) work(one *held) {
	select {
	case h.places <- struct{}{}:
	case <-one.ctx.Done():
		return
	}
	defer func() { <-h.places }()
	if one.ctx.Err() != nil {
		return
	}
	outcome := &schedulerv1.Close{Attempt: one.Ref()}
	h.run(one, outcome)
	if !h.finish(one) {
		return
	}
	if failure := outcome.GetFailure(); failure != nil {
		h.Logf("%v failed: %s", one.Call, failure.Errors[0])
	} else {
		h.Logf("%v successful", one.Call)
	}
	go h.close(one, outcome)
}

// run calls the function, and says in the outcome how that went.
func (h *hand) run(one *held, outcome *schedulerv1.Close) {
	defer func() {
		if raised := recover(); raised != nil {
			fail(outcome, false, fmt.Sprintf("panic: %v", raised), string(debug.Stack()))
		}
	}()
	name := one.Spec.FuncName
	function, known := h.functions[name]
	if !known {
		fail(outcome, false, h.unknown(name).Error())
		return
	}
	if err := one.decode(); err != nil {
		fail(outcome, false, err.Error())
		return
	}
	outputs, err := function(one.ctx, one.Call)
	if err != nil {
		var again retryable
		fail(outcome, errors.As(err, &again), err.Error())
		return
	}
	encoded, err := EncodeAll(outputs...)
	if err != nil {
		fail(outcome, false, fmt.Sprintf("its result cannot be sent: %v", err))
		return
	}
	outcome.Outcome = &schedulerv1.Close_Success_{Success: &schedulerv1.Close_Success{Outputs: encoded}}
}

// fail makes the outcome a failure.
func fail(outcome *schedulerv1.Close, retry bool, messages ...string) {
	for index, message := range messages {
		messages[index] = bounded(message)
	}
	outcome.Outcome = &schedulerv1.Close_Failure_{Failure: &schedulerv1.Close_Failure{Errors: messages, Retryable: retry}}
}

func bounded(text string) string {
	const mark = " ... (cut)"
	if len(text) > maxErrorBytes {
		text = text[:maxErrorBytes-len(mark)] + mark
	}
	return strings.ToValidUTF8(text, "")
}

// finish tells whether this is the first end of an attempt that is still in hand: only that one is sent.
func (h *hand) finish(one *held) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := !one.finished && h.held[one.ProcessId] == one && one.wanted.Err() == nil
	one.finished = one.finished || first
	return first
}

// close sends a result until the server has it, or does not want it.
func (h *hand) close(one *held, outcome *schedulerv1.Close) {
	var wait backoff
	replaced := false
	for {
		err := Retry(one.wanted, func(ctx context.Context) error {
			_, err := h.scheduler.CloseProcesses(ctx, &schedulerv1.CloseProcessesRequest{
				ColonyName: h.client.Colony, Closes: []*schedulerv1.Close{outcome},
			})
			return err
		})
		if one.wanted.Err() != nil {
			return
		}
		failure := failureOf(err)
		switch {
		case err == nil:
			h.release(one)
			return
		case isUnwanted(failure), isAboutResult(failure) && replaced, failure == nil && replaced:
			h.Logf("the result of %v is not wanted: %v", one.Call, err)
			h.release(one)
			return
		case failure == nil || isAboutResult(failure):
			h.Logf("the result of %v was refused: %v", one.Call, err)
			replaced = true
			fail(outcome, false, fmt.Sprintf("its result was refused: %v", err))
			continue
		}
		// Not about the result: this executor may be kept out for a while, or its clock is wrong. The result stays in hand.
		h.Logf("cannot close %v, trying again: %v", one.Call, err)
		wait.sleep(one.wanted, failure.RetryDelay)
	}
}

func isUnwanted(failure *Error) bool {
	return failure != nil && (failure.Code == codes.NotFound ||
		(failure.Code == codes.FailedPrecondition && failure.Reason == "ATTEMPT_SUPERSEDED"))
}

// isAboutResult tells whether a close was refused because of what is in it. The services say why something is exhausted; without a
// reason it is gRPC itself, and the message is too large for it.
func isAboutResult(failure *Error) bool {
	return failure != nil && (failure.Code == codes.InvalidArgument ||
		(failure.Code == codes.ResourceExhausted && failure.Reason == ""))
}
