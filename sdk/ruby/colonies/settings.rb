# frozen_string_literal: true

module Colonies
  # How a program finds its server, its colony and its key: from the environment (what is empty is not set), where arguments do
  # not say it.
  #
  #   COLONIES_HOST      host name or address; default localhost
  #   COLONIES_PORT      port; default 50080
  #   COLONIES_CLUSTER   cluster id, the audience of signatures
  #   COLONIES_COLONY    colony
  #   COLONIES_KEY_FILE  file with the caller's private key: 64 hex digits, mode 0600
  #   COLONIES_CA_FILE   certificates to trust (PEM); implies TLS
  #   COLONIES_TLS       "on" or "off"; without it and without a CA file, plaintext, to this machine alone
  Settings = Struct.new(:host, :port, :cluster, :colony, :key_file, :ca_file, :tls, keyword_init: true) do
    def self.from_env(env = ENV, **given)
      env = env.to_h.reject { |_, value| value.empty? }
      host = env.fetch("COLONIES_HOST", "localhost")
      port = Integer(env.fetch("COLONIES_PORT", "50080"), 10, exception: false)
      raise Refused, "COLONIES_PORT is #{env['COLONIES_PORT'].inspect}: it is a number from 1 to 65535" unless port&.between?(1, 65_535)

      found = new(host: host, port: port, tls: tls_of(env))
      %i[cluster colony key_file ca_file].each { |name| found[name] = env["COLONIES_#{name.upcase}"] }
      given.each { |name, value| found[name] = value unless value.nil? }
      found
    end

    def self.tls_of(env)
      choice = env["COLONIES_TLS"]
      raise Refused, "COLONIES_TLS is #{choice.inspect}: it is on or off" unless [nil, "on", "off"].include?(choice)

      choice && choice == "on"
    end

    # What is said of a setting without which there is no server to reach.
    def self.absent(name)
      "COLONIES_#{name.upcase} is not set: start a server with `colonies up`, then eval \"$(colonies profile env)\""
    end

    # The connection that these settings describe. `key` is used in place of the one in `key_file`.
    def connect(key: nil)
      %i[cluster colony].each { |name| self[name].to_s.empty? and raise Refused, Settings.absent(name) }
      raise Refused, Settings.absent(:key_file) unless key || key_file

      Connection.new("#{host}:#{port}", cluster: cluster, colony: colony, key: key || Keys.load(key_file),
                                        ca_file: ca_file, tls: tls)
    end
  end
end
