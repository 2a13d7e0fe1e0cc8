package colonies

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"colonies/build/schedulerv1"
)

// Streams send signs of life. One that is silent for this long is taken for dead.
const streamSilence = 90 * time.Second

// pull keeps a stream of assignments open until the context ends, through outages of any length.
func (e *Executor) pull(ctx context.Context, hand *hand) error {
	var wait backoff
	for {
		err := e.watch(ctx, hand, &wait)
		if ctx.Err() != nil {
			return nil
		}
		failure := failureOf(err)
		// An outage is told of once. What is refused does not end by itself: a clock that is wrong, an approval that is missing.
		if e.state != Reconnecting || (failure != nil && !failure.isOutage()) {
			e.Logf("the stream of assignments ended, opening another one: %v", err)
		}
		e.enter(Reconnecting)
		var delay time.Duration
		if failure != nil {
			if failure.Code == codes.InvalidArgument {
				return err
			}
			delay = failure.RetryDelay
		}
		if !wait.sleep(ctx, delay) {
			return nil
		}
		if failure != nil && failure.isAboutApproval() {
			if err := e.join(ctx); err != nil {
				return err
			}
		}
	}
}

// watch reads one stream to its end.
func (e *Executor) watch(ctx context.Context, hand *hand, wait *backoff) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(streamSilence, cancel)
	defer silence.Stop()
	stream, err := schedulerv1.NewSchedulerServiceClient(e.client).WatchAssignments(ctx, &schedulerv1.WatchAssignmentsRequest{
		ColonyName: e.client.Colony, MaxInFlight: int32(e.Concurrency),
	})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		// The first one comes at once.
		if e.state != Ready {
			e.Logf("executor %s serves %s in colony %s", e.Name, strings.Join(e.Types, ", "), e.client.Colony)
		}
		e.enter(Ready)
		wait.tries = 0
		silence.Reset(streamSilence)
		for _, assignment := range message.Assignments {
			hand.take(assignment)
		}
	}
}
