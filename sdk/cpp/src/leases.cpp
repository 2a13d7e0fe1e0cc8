// Heartbeats: they confirm what has arrived, and keep the leases of what is in hand.

#include <algorithm>
#include <utility>

#include "work.h"

namespace colonies {

namespace sched = colonies::scheduler::v1;
using Scheduler = sched::SchedulerService::Stub;

namespace {

// Until a heartbeat confirms it, an attempt is an offer, which soon runs out. What is over within this time needs none: its
// close confirms it.
constexpr Milliseconds CONFIRM{250};
// A stream shows signs of life. One that is silent for this long is taken for dead.
constexpr Milliseconds SILENCE{90'000};

}  // namespace

void Work::keep_leases() {
  std::unique_lock lock(mutex_);
  while (!over_) {
    changed_.wait_until(lock, next_beat());
    const auto now = Clock::now();
    if (stream_ != nullptr && now - heard_ > SILENCE) stream_->TryCancel();
    lock.unlock();
    end_overdue(now);
    beat(now);
    lock.lock();
  }
}

// When something may have to be done next; whatever changes wakes the thread, too.
Clock::time_point Work::next_beat() const {
  auto next = Clock::now() + Milliseconds(1'000);
  for (const auto& [key, held] : hand_) {
    next = std::min(next, last_beat_ + beat_every_);
    if (held->finished) continue;
    next = std::min(next, held->over);
    if (!held->confirmed) next = std::min(next, held->taken + CONFIRM);
  }
  return next;
}

void Work::end_overdue(Clock::time_point now) {
  std::vector<HeldPtr> overdue;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, held] : hand_) {
      if (held->over <= now) overdue.push_back(held);
    }
  }
  for (const auto& held : overdue) drop(held, "its max_exec_time is over");
}

// Tells the server of everything in hand every third of a lease, and in between of what it has not heard of yet.
void Work::beat(Clock::time_point now) {
  std::vector<HeldPtr> due;
  sched::HeartbeatRequest request;
  request.set_colony_name(connection_->settings().colony);
  CallOptions options;
  {
    const std::lock_guard lock(mutex_);
    const bool all = now >= last_beat_ + beat_every_;
    if (all) last_beat_ = now;
    for (const auto& [key, held] : hand_) {
      const bool fresh = !held->confirmed && !held->finished && held->taken + CONFIRM <= now;
      if ((!all && !fresh) || due.size() == MAX_IN_FLIGHT) continue;
      due.push_back(held);
      auto& attempt = *request.add_attempts();
      attempt.set_process_id(key.first);
      attempt.set_attempt(key.second);
    }
    // A call that hangs must leave time for another one within the lease.
    options = {std::max(Milliseconds(1'000), beat_every_), Milliseconds(0), &all_};
  }
  if (due.empty()) return;
  try {
    const auto response = connection_->call(*scheduler_, &Scheduler::Heartbeat, request, options);
    beats_fail_ = false;
    std::vector<std::pair<HeldPtr, std::string>> drops;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& held : due) held->confirmed = true;
      if (response.lease_ms() > 0) beat_every_ = Milliseconds(response.lease_ms() / 3);
      for (const auto& named : response.drops()) {
        const auto found = hand_.find({named.attempt().process_id(), named.attempt().attempt()});
        if (found == hand_.end()) continue;
        const bool cancelled = named.reason() == sched::DROP_REASON_CANCELLED;
        drops.emplace_back(found->second, cancelled ? "it was cancelled" : "its lease or its time is over");
      }
    }
    for (const auto& [held, reason] : drops) drop(held, reason);
  } catch (const Error& error) {
    if (all_.cancelled()) return;
    if (!std::exchange(beats_fail_, true)) say(std::string("a heartbeat failed, trying until one gets through: ") + error.what());
    const std::lock_guard lock(mutex_);
    // Once more soon, and not at once.
    last_beat_ = now - beat_every_ + std::max(CONFIRM, beat_every_ / 8);
    for (const auto& held : due) held->taken = now;
  }
}

// Nobody wants the result any more: the function is told. One that is over is left to its close, whose answer says the same.
void Work::drop(const HeldPtr& held, const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (held->finished || held->call.dropped()) return;
    held->call.cancellation().cancel();
    hand_.erase({held->call.process_id(), held->call.attempt()});
    changed_.notify_all();
  }
  say("dropping " + held->name() + ": " + reason);
  const std::lock_guard lock(telling_);
  if (options_.on_drop) options_.on_drop(held->call, reason);
}

}  // namespace colonies
