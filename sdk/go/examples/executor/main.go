// An executor with two functions.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"colonies"
	"colonies/build/schedulerv1"
)

const name = "go-executor"

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	settings, err := colonies.SettingsFromEnv()
	if err != nil {
		return err
	}
	key, err := settings.ExecutorKey(name)
	if err != nil {
		return err
	}
	client, err := colonies.Dial(settings, key)
	if err != nil {
		return err
	}
	defer client.Close()
	executor := colonies.NewExecutor(client, name, "edge")
	executor.Concurrency = 4
	executor.Function("square", square).Description = "Squares a number."
	executor.Function("count", count).Description = "Counts the seconds up to a number, in its log."
	return executor.RunUntilSignal()
}

func square(_ context.Context, call *colonies.Call) (colonies.Outputs, error) {
	var x float64
	if err := call.Arg(0, &x); err != nil {
		return nil, err
	}
	return colonies.Outputs{x * x}, nil
}

func count(ctx context.Context, call *colonies.Call) (colonies.Outputs, error) {
	var seconds int
	if err := call.Arg(0, &seconds); err != nil {
		return nil, err
	}
	for second := 1; second <= seconds; second++ {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done(): // nobody wants the result any more
			return nil, ctx.Err()
		}
		if err := tell(ctx, call, int64(second)); err != nil {
			return nil, colonies.Retryable(err)
		}
	}
	return colonies.Outputs{seconds}, nil
}

// tell adds a line to the process's log. Lines are numbered, so that the call may be repeated.
func tell(ctx context.Context, call *colonies.Call, number int64) error {
	return colonies.Retry(ctx, func(ctx context.Context) error {
		_, err := schedulerv1.NewSchedulerServiceClient(call.Client).AddLogs(ctx, &schedulerv1.AddLogsRequest{
			ColonyName: call.Client.Colony, Attempt: call.Ref(), FirstNumber: number,
			Lines: []*schedulerv1.LogLine{{Message: fmt.Sprintf("%d s", number)}},
		})
		return err
	})
}
