package colonies

import (
	"context"
	"strings"
	"sync"
	"time"

	"colonies/build/schedulerv1"
)

const (
	// How many ended attempts are remembered, so that none is run again that a new stream still brings.
	maxEnded = 4096
	// After the drain's time is over: for telling the server what was not finished.
	lastCloses = 10 * time.Second
)

const (
	cancelled  = schedulerv1.DropReason_DROP_REASON_CANCELLED
	superseded = schedulerv1.DropReason_DROP_REASON_SUPERSEDED
)

// held is one attempt in hand: from its assignment until the server has the result, or does not want it.
type held struct {
	*Call
	// Ends when nobody wants the result.
	wanted   context.Context
	unwanted context.CancelFunc
	// The function's; ends with the other one or before.
	ctx    context.Context
	cancel context.CancelFunc
	// Ends the attempt when its time is over.
	timer *time.Timer
	// A heartbeat has told the server that it arrived.
	confirmed bool
	// The result is on its way.
	finished bool
}

// hand is all attempts in hand.
type hand struct {
	*Executor
	scheduler schedulerv1.SchedulerServiceClient
	// Ends with the executor.
	ctx    context.Context
	cancel context.CancelFunc
	// One for each function that runs. One that was dropped and still runs keeps its place.
	places chan struct{}
	// Something is in hand of which the server has not heard.
	fresh chan struct{}
	// Something is no longer in hand.
	settled chan struct{}

	mu    sync.Mutex
	held  map[string]*held // by process
	lease time.Duration
	// The last attempts that ended, by process, and the order in which they are forgotten.
	ended      map[string]int32
	endedOrder []string
}

func newHand(e *Executor) *hand {
	h := &hand{
		Executor:  e,
		scheduler: schedulerv1.NewSchedulerServiceClient(e.client),
		places:    make(chan struct{}, e.Concurrency),
		fresh:     make(chan struct{}, 1),
		settled:   make(chan struct{}, 1),
		held:      map[string]*held{},
		lease:     3 * time.Second,
		ended:     map[string]int32{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

func signalTo(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default: // somebody has been told already, and has not looked yet
	}
}

// take begins an attempt that was assigned; an earlier one of the same process is over.
func (h *hand) take(assignment *schedulerv1.Assignment) {
	h.mu.Lock()
	earlier := h.held[assignment.ProcessId]
	again := h.ended[assignment.ProcessId] >= assignment.Attempt || (earlier != nil && earlier.Attempt >= assignment.Attempt)
	h.mu.Unlock()
	if again {
		return
	}
	if earlier != nil {
		h.drop(earlier, superseded)
	}
	one := &held{Call: &Call{Assignment: assignment, Client: h.client}}
	one.wanted, one.unwanted = context.WithCancel(h.ctx)
	one.ctx, one.cancel = context.WithCancel(one.wanted)
	h.mu.Lock()
	h.held[assignment.ProcessId] = one
	h.setLease(assignment.LeaseMs)
	if limit := time.Duration(assignment.Spec.MaxExecTimeMs) * time.Millisecond; limit > 0 {
		// Counted from here, for the clocks of the two machines may differ by more than the limit is long.
		one.timer = time.AfterFunc(limit, func() { h.drop(one, superseded) })
	}
	h.mu.Unlock()
	signalTo(h.fresh)
	go h.work(one)
}

func (h *hand) setLease(leaseMs int64) {
	if leaseMs > 0 {
		h.lease = time.Duration(leaseMs) * time.Millisecond
	}
}

// release forgets an attempt that is in hand; false if it is not any more.
func (h *hand) release(one *held) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[one.ProcessId] != one {
		return false
	}
	delete(h.held, one.ProcessId)
	if one.timer != nil {
		one.timer.Stop()
	}
	if _, known := h.ended[one.ProcessId]; !known {
		h.endedOrder = append(h.endedOrder, one.ProcessId)
	}
	h.ended[one.ProcessId] = one.Attempt
	if len(h.endedOrder) > maxEnded {
		delete(h.ended, h.endedOrder[0])
		h.endedOrder = h.endedOrder[1:]
	}
	one.unwanted()
	signalTo(h.settled)
	return true
}

// drop ends an attempt whose result nobody wants any more.
func (h *hand) drop(one *held, reason schedulerv1.DropReason) {
	if h.release(one) {
		h.Logf("dropping %v: %s", one.Call, strings.TrimPrefix(reason.String(), "DROP_REASON_"))
		h.OnDrop(one.Call, reason)
	}
}

// drain waits until nothing is in hand. What is not finished in time is given back, so that another executor can try.
func (h *hand) drain() {
	if h.emptied(h.DrainTimeout) {
		return
	}
	for _, one := range h.all() {
		// A result that only waits to be sent still is.
		if !h.finish(one) {
			continue
		}
		h.Logf("giving back %v: this executor is shutting down", one.Call)
		one.cancel()
		outcome := &schedulerv1.Close{Attempt: one.Ref()}
		fail(outcome, true, "its executor was shut down before it was finished")
		go h.close(one, outcome)
	}
	if !h.emptied(lastCloses) {
		h.Logf("leaving with %d results that the server has not taken", len(h.all()))
	}
}

func (h *hand) all() []*held {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*held, 0, len(h.held))
	for _, one := range h.held {
		all = append(all, one)
	}
	return all
}

func (h *hand) emptied(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for len(h.all()) > 0 {
		select {
		case <-h.settled:
		case <-timer.C:
			return false
		}
	}
	return true
}
