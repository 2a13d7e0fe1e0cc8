// The executor as its author sees it: what it offers, its key, and the signals that end it. `work.cpp` has the rest.
#include "colonies/executor.h"

#include <sys/eventfd.h>
#include <sys/poll.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "work.h"

namespace colonies {

namespace {

// Readable from the first signal on, for all executors of the program.
const int signalled = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

void wake(int event) {
  const std::uint64_t one = 1;
  // It fails only when it has been written so often that it is readable anyhow.
  [[maybe_unused]] const auto written = write(event, &one, sizeof one);
}

extern "C" void colonies_on_signal(int) { wake(signalled); }

// Stops an executor at the first signal; the second one ends the program, as it does without a handler.
class StopAtSignal {
 public:
  explicit StopAtSignal(Work& work) : over_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    struct sigaction action = {};
    action.sa_handler = colonies_on_signal;
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    for (std::size_t each = 0; each < 2; ++each) sigaction(SIGNALS[each], &action, &before_[each]);
    watcher_ = std::thread([this, &work] {
      pollfd events[] = {{signalled, POLLIN, 0}, {over_, POLLIN, 0}};
      while (poll(events, 2, -1) < 0) continue;  // interrupted by a signal that is not for it
      if (events[0].revents != 0) {
        for (const int number : SIGNALS) std::signal(number, SIG_DFL);
        work.stop();
      }
    });
  }
  ~StopAtSignal() {
    wake(over_);
    watcher_.join();
    close(over_);
    for (std::size_t each = 0; each < 2; ++each) sigaction(SIGNALS[each], &before_[each], nullptr);
  }

 private:
  static constexpr int SIGNALS[] = {SIGTERM, SIGINT};
  const int over_;
  struct sigaction before_[2] = {};
  std::thread watcher_;
};

std::shared_ptr<Connection> with_own_key(const Settings& settings, const ExecutorOptions& options) {
  // Before a key is made for an executor of nowhere.
  settings.check();
  const std::string path = options.key_file.empty() ? executor_key_file(settings.colony, options.name) : options.key_file;
  return std::make_shared<Connection>(settings, PrivateKey::load_or_create(path));
}

}  // namespace

const Value& Call::value(int index) const {
  const int own = assignment_.spec().args_size();
  if (index < 0 || index >= size()) {
    throw Refused("argument " + std::to_string(index + 1) + " is missing: there are " + std::to_string(size()));
  }
  return index < own ? assignment_.spec().args(index) : assignment_.inputs(index - own);
}

Executor::Executor(std::shared_ptr<Connection> connection, ExecutorOptions options)
    : work_(std::make_shared<Work>(std::move(connection), std::move(options))) {}

Executor::Executor(Settings settings, ExecutorOptions options)
    // A copy: arguments are made in any order, and the key's file is named after the options.
    : Executor(with_own_key(settings, options), options) {}

Executor::~Executor() = default;

void Executor::function(const std::string& name, Function function, const std::string& description) {
  work_->offer(name, std::move(function), description);
}

void Executor::run() {
  const StopAtSignal guard(*work_);
  work_->run();
}

void Executor::run_until_stopped() { work_->run(); }

void Executor::stop() { work_->stop(); }

}  // namespace colonies
