# frozen_string_literal: true

# Submits square(X) and waits for what comes of it: ruby examples/client.rb [X]

require_relative "../colonies"

V1 = Colonies::Scheduler::V1

connection = Colonies::Settings.from_env.connect
colony = connection.colony

spec = V1::FunctionSpec.new(
  func_name: "square",
  args: [Colonies::Values.encode(Integer(ARGV.fetch(0, "12")))],
  conditions: V1::Conditions.new(executor_type: "edge"),
  max_retries: 3
)
# With the same request id a submit may be repeated, and counts once.
request = V1::SubmitProcessesRequest.new(colony_name: colony, request_id: SecureRandom.uuid, specs: [spec])
process_id = connection.scheduler.submit_processes(request).process_ids.first
puts "submitted #{process_id}"

cursor = ""
begin
  watch = V1::WatchProcessesRequest.new(colony_name: colony, process_id: process_id, cursor: cursor)
  connection.scheduler.watch_processes(watch).each do |message|
    cursor = message.cursor unless message.cursor.empty?
    message.events.each { |event| puts event.transition.to_state.to_s.delete_prefix("PROCESS_STATE_") }
  end
rescue Colonies::Error => e
  raise unless e.passes?

  sleep(1)
  retry # it goes on at the cursor
end

process = connection.scheduler.get_process(V1::GetProcessRequest.new(colony_name: colony, process_id: process_id)).process
abort process.errors.join("\n") unless process.state == :PROCESS_STATE_SUCCESSFUL
process.outputs.each { |output| puts Colonies::Values.decode(output) }
