# frozen_string_literal: true

require "fileutils"

module Colonies
  # Key files: 64 hex digits that only their owner may read.
  module Keys
    HEX = /\A[0-9a-fA-F]{64}\z/.freeze

    module_function

    # Raises Refused when the text is no key.
    def from_hex(text)
      raise Refused, "a private key is 64 hex digits; this text is not" unless text.strip.match?(HEX)

      Signing::PrivateKey.new([text.strip].pack("H*"))
    end

    # Raises Refused when the file is missing, holds no key, or can be read by others.
    def load(path)
      path = File.expand_path(path)
      mode = File.stat(path).mode & 0o777
      raise Refused, format("the key file %s can be read by others (mode %04o); run: chmod 600 %s", path, mode, path) if mode & 0o077 != 0

      text = File.binread(path)
      raise Refused, "the key file #{path} holds no key: a private key is 64 hex digits" unless text.strip.match?(HEX)

      from_hex(text)
    rescue SystemCallError => e
      raise Refused, "cannot read the key file: #{e.message}"
    end

    # An executor's own key, in a file of its own beside the profiles of this user; made when there is none yet.
    def for_executor(colony, name)
      raise Refused, Settings.absent(:colony) if colony.to_s.empty?

      folder = ENV["XDG_CONFIG_HOME"].to_s.empty? ? "~/.config" : ENV["XDG_CONFIG_HOME"]
      load_or_create(File.join(folder, "colonies", "executors", colony, "#{name}.key"))
    end

    # The key in this file, which is made when there is none yet.
    def load_or_create(path)
      path = File.expand_path(path)
      return load(path) if File.exist?(path)

      FileUtils.mkdir_p(File.dirname(path), mode: 0o700)
      scratch = "#{path}.#{Process.pid}.#{SecureRandom.hex(4)}"
      begin
        File.open(scratch, File::WRONLY | File::CREAT | File::EXCL, 0o600) do |file|
          file.puts(SecureRandom.hex(32))
          file.fsync
        end
        # It appears whole or not at all, and never in the place of another one.
        File.link(scratch, path)
      rescue Errno::EEXIST
        return load(path) # another process made it first
      ensure
        FileUtils.rm_f(scratch)
      end
      load(path)
    end
  end
end
