package colonies

import (
	"context"
	"time"

	"colonies/build/schedulerv1"
)

const maxHeartbeat = 1000

// beat sends heartbeats while the executor lives: for what is fresh at once, and for all that is in hand every third of a lease.
func (h *hand) beat() {
	var wait backoff
	last, pause := time.Now(), time.Duration(0)
	for {
		timer := time.NewTimer(pause)
		select {
		case <-h.ctx.Done():
			timer.Stop()
			return
		case <-h.fresh:
		case <-timer.C:
		}
		timer.Stop()
		refs, interval, all := h.due(last)
		began := time.Now()
		for len(refs) > 0 {
			count := len(refs)
			if count > maxHeartbeat {
				count = maxHeartbeat
			}
			if err := h.heartbeat(refs[:count], interval); err != nil {
				if wait.tries == 0 && h.ctx.Err() == nil {
					h.Logf("a heartbeat failed, trying again: %v", err)
				}
				if !wait.sleep(h.ctx, 0) {
					return
				}
				signalTo(h.fresh)
				break
			}
			wait.tries = 0
			refs = refs[count:]
		}
		if all && len(refs) == 0 {
			last = began
		}
		pause = time.Until(last.Add(interval))
	}
}

// due is what the next heartbeat is about: all that is in hand when a third of a lease is over since the last one about all, and in
// between only what the server has not heard of. Three heartbeats fit into a lease, so that one may be lost.
func (h *hand) due(last time.Time) (refs []*schedulerv1.AttemptRef, interval time.Duration, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	interval = h.lease / 3
	all = time.Since(last) >= interval
	for _, one := range h.held {
		if all || !one.confirmed {
			refs = append(refs, one.Ref())
		}
	}
	return refs, interval, all
}

func (h *hand) heartbeat(refs []*schedulerv1.AttemptRef, interval time.Duration) error {
	// A call that hangs must leave time for another one within the lease.
	if interval < time.Second {
		interval = time.Second
	}
	ctx, cancel := context.WithTimeout(h.ctx, interval)
	defer cancel()
	reply, err := h.scheduler.Heartbeat(ctx, &schedulerv1.HeartbeatRequest{ColonyName: h.client.Colony, Attempts: refs})
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.setLease(reply.LeaseMs)
	for _, ref := range refs {
		if one := h.held[ref.ProcessId]; one != nil && one.Attempt == ref.Attempt {
			one.confirmed = true
		}
	}
	h.mu.Unlock()
	for _, named := range reply.Drops {
		h.mu.Lock()
		one := h.held[named.GetAttempt().GetProcessId()]
		// What has just been closed is named as well: the answer to the close says what became of a result that is on its way.
		unwanted := one != nil && one.Attempt == named.Attempt.Attempt && !one.finished
		h.mu.Unlock()
		if unwanted {
			h.drop(one, named.Reason)
		}
	}
	return nil
}
