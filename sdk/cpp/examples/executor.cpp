// An executor in C++: see README.md for what it needs in the environment.

#include "colonies/executor.h"

#include <iostream>

using colonies::Call;
using colonies::Outputs;

int main() {
  colonies::ExecutorOptions options;
  options.name = "cpp-1";
  options.types = {"edge"};
  options.concurrency = 4;
  try {
    colonies::Executor executor(colonies::Settings::from_env(), options);

    executor.function("square", [](Call& call) -> Outputs {
      const auto number = call.arg<std::int64_t>(0);
      return number * number;
    });

    // Its arguments may be of the spec, or the outputs of its parents in a workflow.
    executor.function("total", [](Call& call) -> Outputs {
      std::int64_t total = 0;
      for (int index = 0; index < call.size(); ++index) total += call.arg<std::int64_t>(index);
      return total;
    });

    executor.function("pause", [](Call& call) -> Outputs {
      const auto seconds = call.arg<int>(0);
      if (seconds > 3'600) throw std::runtime_error("this is too long");  // fails the process
      if (call.wait(std::chrono::seconds(seconds))) throw std::runtime_error("nobody wants it any more");
      if (call.kwarg<bool>("flaky").value_or(false) && call.attempt() == 1) {
        throw colonies::Retryable("try me again");  // goes back to the queue, if the spec has retries left
      }
      return Outputs();
    });

    executor.run();
  } catch (const std::exception& error) {
    std::cerr << "executor: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
