#include "work.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <thread>

namespace colonies {

namespace reg = colonies::registry::v1;
namespace sched = colonies::scheduler::v1;
using Registry = reg::RegistryService::Stub;
using Scheduler = sched::SchedulerService::Stub;
using grpc::StatusCode;

namespace {

constexpr std::size_t MAX_ERROR_BYTES = 8 * 1024;
// After the drain's time is over: for telling the server what was not finished.
constexpr Milliseconds LAST_CLOSE{10'000};

void check_name(const std::string& name, const std::string& what) {
  const auto fits = [](unsigned char each) { return each < 128 && (std::isalnum(each) || each == '.' || each == '_' || each == '-'); };
  if (name.empty() || name.size() > 128 || !std::all_of(name.begin(), name.end(), fits) || !std::isalnum(name[0] & 0xff)) {
    throw Refused(what + " is \"" + name + "\": it takes 1-128 letters, digits, '.', '_' and '-', the first a letter or a digit");
  }
}

// Texts of errors can be anything; what is sent must be UTF-8, and not too long.
std::string bounded(const std::string& text) {
  const Json cut = text.substr(0, MAX_ERROR_BYTES);
  return Json::parse(cut.dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

sched::Close failure(const std::string& error, bool retryable = false) {
  sched::Close close;
  close.mutable_failure()->add_errors(bounded(error));
  close.mutable_failure()->set_retryable(retryable);
  return close;
}

}  // namespace

std::string Held::name() const {
  return call.assignment().spec().func_name() + " (process " + call.process_id() + ", attempt " +
         std::to_string(call.attempt()) + ")";
}

Work::Work(std::shared_ptr<Connection> connection, ExecutorOptions options)
    : connection_(std::move(connection)),
      options_(std::move(options)),
      registry_(reg::RegistryService::NewStub(connection_->channel())),
      scheduler_(sched::SchedulerService::NewStub(connection_->channel())) {
  check_name(connection_->settings().colony, "the colony");
  check_name(options_.name, "the executor's name");
  if (options_.types.empty()) throw Refused("an executor serves at least one executor type");
  for (const auto& type : options_.types) check_name(type, "an executor type");
  if (options_.concurrency < 1 || options_.concurrency > MAX_IN_FLIGHT) {
    throw Refused("concurrency is " + std::to_string(options_.concurrency) + ": it is 1 to " + std::to_string(MAX_IN_FLIGHT));
  }
  announcement_.set_colony_name(connection_->settings().colony);
}

void Work::offer(const std::string& name, Function function, const std::string& description) {
  if (!functions_.emplace(name, std::move(function)).second) throw Refused("this executor has a function " + name + " already");
  auto& announced = *announcement_.add_functions();
  announced.set_name(name);
  announced.set_description(description);
}

void Work::say(const std::string& line) {
  const std::lock_guard lock(telling_);
  if (options_.log) {
    options_.log(line);
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

void Work::enter(State state) {
  const std::lock_guard lock(telling_);
  if (state_ == state) return;
  state_ = state;
  if (options_.on_state) options_.on_state(state);
}

void Work::stop() { pulling_.cancel(); }

void Work::run() {
  {
    const std::lock_guard lock(mutex_);
    if (begun_) throw std::logic_error("an executor runs once");
    begun_ = true;
  }
  std::thread leases([this] { keep_leases(); });
  std::exception_ptr failed;
  try {
    while (!pulling_.cancelled()) {
      join();
      pull();
    }
  } catch (const Error&) {
    // Whatever was under way when it was told to stop has been cut off.
    if (!pulling_.cancelled()) failed = std::current_exception();
  } catch (...) {
    // A callback threw, or there is no memory: the threads must end before it goes on to the caller.
    failed = std::current_exception();
  }
  if (!failed) drain();
  end();
  leases.join();
  if (failed) std::rethrow_exception(failed);
}

// Reads one stream after another; returns when the executor may have to join again.
void Work::pull() {
  bool lost = false;
  while (!pulling_.cancelled()) {
    const grpc::Status status = read_stream();
    if (pulling_.cancelled()) return;
    const Error error(status);
    const bool refused = !status.ok() && !error.is_outage();
    if (error.code == StatusCode::INVALID_ARGUMENT) throw error;
    if (refused || !lost) say(std::string("the stream of assignments broke, trying until there is one: ") + error.what());
    lost = !refused;
    enter(State::RECONNECTING);
    connection_->pause(pull_backoff_.next(error.retry_delay), &pulling_);
    if (error.is_about_approval()) return;
  }
}

grpc::Status Work::read_stream() {
  sched::WatchAssignmentsRequest request;
  request.set_colony_name(connection_->settings().colony);
  request.set_max_in_flight(options_.concurrency);
  const auto once = [&](grpc::ClientContext& context) {
    {
      const std::lock_guard lock(mutex_);
      stream_ = &context;
      heard_ = Clock::now();
    }
    const auto reader = scheduler_->WatchAssignments(&context, request);
    sched::WatchAssignmentsResponse message;
    while (reader->Read(&message) && !pulling_.cancelled()) {
      pull_backoff_.reset();
      enter(State::READY);
      take(message);
    }
    {
      const std::lock_guard lock(mutex_);
      stream_ = nullptr;
    }
    return reader->Finish();
  };
  return connection_->attempt(once, {std::nullopt, Milliseconds(0), &pulling_});
}

void Work::take(const sched::WatchAssignmentsResponse& message) {
  std::vector<HeldPtr> replaced;
  {
    const std::lock_guard lock(mutex_);
    heard_ = Clock::now();
    for (const auto& assignment : message.assignments()) {
      const Key key(assignment.process_id(), assignment.attempt());
      // The same attempt may come again on another stream; an earlier one of this process is nobody's any more.
      if (hand_.count(key) != 0) continue;
      for (auto each = hand_.lower_bound({key.first, 0}); each != hand_.end() && each->first < key; ++each) {
        replaced.push_back(each->second);
      }
      const auto held = std::make_shared<Held>(assignment);
      if (assignment.has_exec_deadline()) held->over = held->taken + Milliseconds(assignment.spec().max_exec_time_ms());
      if (assignment.lease_ms() > 0) beat_every_ = Milliseconds(assignment.lease_ms() / 3);
      if (hand_.empty()) last_beat_ = held->taken;
      hand_.emplace(key, held);
      waiting_.push_back(held);
      if (static_cast<int>(waiting_.size()) > idle_ && threads_ < options_.concurrency) {
        ++threads_;
        std::thread([self = shared_from_this()] { self->serve(); }).detach();
      }
    }
    changed_.notify_all();
  }
  for (const auto& held : replaced) drop(held, "it was given out again");
}

// What a thread for functions does. A dropped function keeps its thread until it returns: the author said how many may run at
// once, and what the server sends beyond that waits.
void Work::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    changed_.wait(lock, [this] { return over_ || !waiting_.empty(); });
    --idle_;
    if (over_) break;
    const HeldPtr held = waiting_.front();
    waiting_.pop_front();
    if (held->finished || held->call.dropped()) continue;
    ++running_;
    lock.unlock();
    auto close = outcome_of(*held);
    lock.lock();
    --running_;
    const bool wanted = !over_ && !held->finished && !held->call.dropped();
    if (!wanted) continue;
    held->finished = true;
    lock.unlock();
    say(held->name() + (close.has_failure() ? " failed: " + close.failure().errors(0) : " successful"));
    this->close(held, std::move(close));
    lock.lock();
  }
  --threads_;
  changed_.notify_all();
}

sched::Close Work::outcome_of(Held& held) {
  const auto found = functions_.find(held.call.assignment().spec().func_name());
  if (found == functions_.end()) {
    std::string known;
    for (const auto& [name, function] : functions_) known += (known.empty() ? "" : ", ") + name;
    return failure("this executor has no function \"" + held.call.assignment().spec().func_name() + "\"; it has: " + known +
                   " (work goes to any executor of its type: give those with other functions another type)");
  }
  try {
    const Outputs outputs = found->second(held.call);
    sched::Close close;
    close.mutable_success()->mutable_outputs()->Add(outputs.values().begin(), outputs.values().end());
    return close;
  } catch (const Retryable& error) {
    return failure(error.what(), true);
  } catch (const std::exception& error) {
    return failure(error.what());
  } catch (...) {
    return failure("the function threw what is no std::exception");
  }
}

// Sends the end of an attempt until the server has it or does not want it.
void Work::close(const HeldPtr& held, sched::Close close) {
  for (Backoff backoff; !closed(*held, close, backoff);) {
    if (all_.cancelled()) return;  // everything is over
  }
  const std::lock_guard lock(mutex_);
  hand_.erase({held->call.process_id(), held->call.attempt()});
  changed_.notify_all();
}

bool Work::closed(const Held& held, sched::Close& close, Backoff& backoff) {
  close.mutable_attempt()->set_process_id(held.call.process_id());
  close.mutable_attempt()->set_attempt(held.call.attempt());
  sched::CloseProcessesRequest request;
  request.set_colony_name(connection_->settings().colony);
  *request.add_closes() = close;
  try {
    connection_->call(*scheduler_, &Scheduler::CloseProcesses, request, {Milliseconds(30'000), FOR_EVER, &all_});
    return true;
  } catch (const Error& error) {
    if (all_.cancelled()) return false;
    const std::string what = error.what();
    if (error.code == StatusCode::NOT_FOUND || error.reason == "ATTEMPT_SUPERSEDED") {
      say("the result of " + held.name() + " is not wanted: " + what);
      return true;
    }
    // The services say why; where there is no reason it is gRPC itself, and the message is too large for it.
    const bool too_large = error.code == StatusCode::RESOURCE_EXHAUSTED && error.reason.empty();
    if (error.code == StatusCode::INVALID_ARGUMENT || too_large) {
      say("the result of " + held.name() + " was refused: " + what);
      const bool own = close.has_failure() && close.failure().errors(0).rfind("its result was refused", 0) == 0;
      close = failure("its result was refused: " + what);
      return own;
    }
    // Not about the result: this executor may be kept out for a while, or its clock is wrong. It stays in hand.
    say("cannot close " + held.name() + ", trying again: " + what);
    all_.wait(backoff.next(error.retry_delay));
    return false;
  }
}

void Work::drain() {
  enter(State::DRAINING);
  std::vector<HeldPtr> unfinished;
  {
    std::unique_lock lock(mutex_);
    if (!hand_.empty()) changed_.wait_for(lock, options_.drain_timeout, [this] { return hand_.empty(); });
    for (const auto& [key, held] : hand_) {
      if (!held->finished) unfinished.push_back(held);
    }
  }
  const auto give_up = Clock::now() + LAST_CLOSE;
  for (const auto& held : unfinished) give_back(held);
  std::unique_lock lock(mutex_);
  if (!changed_.wait_until(lock, give_up, [this] { return hand_.empty(); })) {
    const auto left = std::to_string(hand_.size());
    lock.unlock();
    say("leaving with " + left + " results that the server has not taken");
  }
}

// Ends a running attempt so that another executor can try; a result that only waits to be sent still is.
void Work::give_back(const HeldPtr& held) {
  {
    const std::lock_guard lock(mutex_);
    if (held->finished || held->call.dropped()) return;
    held->finished = true;
    ++threads_;
  }
  held->call.cancellation().cancel();
  say("giving back " + held->name() + ": this executor is shutting down");
  {
    const std::lock_guard lock(telling_);
    if (options_.on_drop) options_.on_drop(held->call, "this executor is shutting down");
  }
  std::thread([self = shared_from_this(), held] {
    self->close(held, failure("its executor was shut down before it was finished", true));
    const std::lock_guard lock(self->mutex_);
    --self->threads_;
    self->changed_.notify_all();
  }).detach();
}

// Ends all threads but those whose functions do not return, and tells those functions.
void Work::end() {
  std::map<Key, HeldPtr> rest;
  std::unique_lock lock(mutex_);
  over_ = true;
  rest.swap(hand_);
  for (const auto& [key, held] : rest) held->call.cancellation().cancel();
  lock.unlock();
  all_.cancel();
  lock.lock();
  changed_.notify_all();
  changed_.wait(lock, [this] { return threads_ == running_; });
}

}  // namespace colonies
