// An executor at work: join the colony, pull, run, keep the leases, close, drain.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "colonies/executor.h"
#include "colonies/registry/v1/registry_service.grpc.pb.h"
#include "colonies/scheduler/v1/scheduler_service.grpc.pb.h"

namespace colonies {

using Clock = std::chrono::steady_clock;

// What a stream holds, and a heartbeat names, at most.
inline constexpr int MAX_IN_FLIGHT = 1'000;

// An attempt in hand: from its assignment until the server has the result, or does not want it.
struct Held {
  explicit Held(scheduler::v1::Assignment assignment) : call(std::move(assignment)) {}

  // For people.
  std::string name() const;

  Call call;
  Clock::time_point taken = Clock::now();
  // When its time is over, counted from here: the clocks of the two machines may differ by more than the limit is long.
  Clock::time_point over = Clock::time_point::max();
  // A heartbeat has told the server that it arrived.
  bool confirmed = false;
  // Its function is over, or another result stands in for it: the answer to its close decides what becomes of it.
  bool finished = false;
};

// Threads hold it, so that a function which does not end in time can go on when all else is over.
class Work : public std::enable_shared_from_this<Work> {
 public:
  Work(std::shared_ptr<Connection> connection, ExecutorOptions options);

  void offer(const std::string& name, Function function, const std::string& description);
  void run();
  void stop();

 private:
  using HeldPtr = std::shared_ptr<Held>;
  using Key = std::pair<std::string, int>;

  void say(const std::string& line);
  void enter(State state);

  // Joining (joining.cpp) and pulling, by the thread of `run`; each returns early when it is to stop.
  void join();
  bool announced();
  void pull();
  grpc::Status read_stream();
  void take(const scheduler::v1::WatchAssignmentsResponse& message);

  // Running functions, by threads of their own.
  void serve();
  scheduler::v1::Close outcome_of(Held& held);
  void close(const HeldPtr& held, scheduler::v1::Close close);
  // False if it is to be sent again, perhaps with another result.
  bool closed(const Held& held, scheduler::v1::Close& close, Backoff& backoff);

  // Heartbeats, and the ends of attempts whose time is over, by one more thread (leases.cpp).
  void keep_leases();
  Clock::time_point next_beat() const;
  void end_overdue(Clock::time_point now);
  void beat(Clock::time_point now);
  void drop(const HeldPtr& held, const std::string& reason);

  void drain();
  void give_back(const HeldPtr& held);
  void end();

  const std::shared_ptr<Connection> connection_;
  const ExecutorOptions options_;
  const std::unique_ptr<registry::v1::RegistryService::Stub> registry_;
  const std::unique_ptr<scheduler::v1::SchedulerService::Stub> scheduler_;
  std::map<std::string, Function> functions_;
  registry::v1::AnnounceFunctionsRequest announcement_;

  std::mutex telling_;
  std::optional<State> state_;
  Backoff pull_backoff_;
  bool beats_fail_ = false;
  // Ends what asks for work; and all else, when everything is over.
  Cancellation pulling_;
  Cancellation all_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, HeldPtr> hand_;
  std::deque<HeldPtr> waiting_;
  // Threads for functions: how many there are, wait for one, and run one.
  int threads_ = 0;
  int idle_ = 0;
  int running_ = 0;
  Milliseconds beat_every_{1'000};
  Clock::time_point last_beat_ = Clock::now();
  bool over_ = false;
  bool begun_ = false;
  // The stream that is open, and when it was last heard.
  grpc::ClientContext* stream_ = nullptr;
  Clock::time_point heard_;
};

}  // namespace colonies
