# frozen_string_literal: true

# An executor with two functions: ruby examples/executor.rb [NAME]

require_relative "../colonies"

name = ARGV.fetch(0, "ruby-1")
settings = Colonies::Settings.from_env
connection = settings.connect(key: Colonies::Keys.for_executor(settings.colony, name))

executor = Colonies::Executor.new(name, types: ["edge"], connection: connection, concurrency: 4)

executor.function("square", description: "Squares a number.") { |_attempt, x| x * x }

executor.function("countdown", description: "Counts down to zero, a number a second.") do |attempt, from|
  raise ArgumentError, "from must be a number" unless from.is_a?(Integer)

  from.downto(1) do |number|
    line = Colonies::Scheduler::V1::LogLine.new(message: "#{number}...", time: Time.now)
    request = Colonies::Scheduler::V1::AddLogsRequest.new(colony_name: settings.colony, attempt: attempt.ref, lines: [line])
    connection.scheduler.add_logs(request)
    # Waits, and stops when nobody wants the result any more.
    break if attempt.wait(1)
  end
  attempt.outputs("lift-off", from)
end

executor.run
