# frozen_string_literal: true

# Colonies for Ruby: signed calls to every service, and executors. See README.md; make.sh makes the stubs.

require "grpc"

build = File.expand_path("build", __dir__)
$LOAD_PATH.unshift(build) unless $LOAD_PATH.include?(build)

require "colonies/status/v1/status_pb"
%w[auth/v1/auth cron/v1/cron cron/v1/generator registry/v1/registry scheduler/v1/scheduler].each do |name|
  require "colonies/#{name}_service_services_pb"
end

require_relative "colonies/signing"
require_relative "colonies/errors"
require_relative "colonies/keys"
require_relative "colonies/values"
require_relative "colonies/settings"
require_relative "colonies/connection"
require_relative "colonies/function"
require_relative "colonies/attempt"
require_relative "colonies/hand"
require_relative "colonies/leases"
require_relative "colonies/closer"
require_relative "colonies/executor"
