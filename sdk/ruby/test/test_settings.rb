# frozen_string_literal: true

require "minitest/autorun"
require "tmpdir"
require_relative "../colonies"

class TestSettings < Minitest::Test
  Settings = Colonies::Settings
  Keys = Colonies::Keys

  def test_the_environment_and_what_is_given_in_its_place
    env = { "COLONIES_PORT" => "1234", "COLONIES_COLONY" => "dev", "COLONIES_CLUSTER" => "c", "COLONIES_TLS" => "off", "COLONIES_CA_FILE" => "" }
    found = Settings.from_env(env, colony: "other")
    assert_equal ["localhost", 1234, "c", "other", nil, false], found.to_h.values_at(:host, :port, :cluster, :colony, :ca_file, :tls)
  end

  def test_what_makes_no_sense_is_refused
    [{ "COLONIES_PORT" => "0" }, { "COLONIES_PORT" => "x" }, { "COLONIES_PORT" => "65536" }, { "COLONIES_TLS" => "yes" }].each do |env|
      assert_raises(Colonies::Refused, env) { Settings.from_env(env) }
    end
    assert_match(/COLONIES_CLUSTER/, assert_raises(Colonies::Refused) { Settings.from_env({}, colony: "dev").connect }.message)
  end

  def test_plaintext_to_another_machine_must_be_asked_for
    key = Colonies::Signing::PrivateKey.new("k" * 32)
    settings = Settings.from_env({}, host: "example.org", cluster: "c", colony: "dev")
    assert_match(/COLONIES_TLS=off/, assert_raises(Colonies::Refused) { settings.connect(key: key) }.message)
    settings.tls = false
    assert settings.connect(key: key)
    assert Settings.from_env({}, host: "127.0.0.1", cluster: "c", colony: "dev").connect(key: key)
  end

  def test_a_missing_ca_file_is_refused
    key = Colonies::Signing::PrivateKey.new("k" * 32)
    settings = Settings.from_env({}, cluster: "c", colony: "dev", ca_file: "/nowhere.pem")
    assert_match(/nowhere/, assert_raises(Colonies::Refused) { settings.connect(key: key) }.message)
  end

  def test_a_key_file_is_made_once_and_for_its_owner_alone
    Dir.mktmpdir do |folder|
      path = File.join(folder, "deep", "e1.key")
      made = Array.new(8) { Thread.new { Keys.load_or_create(path).identity } }.map(&:value)
      assert_equal 1, made.uniq.size
      assert_equal 0o600, File.stat(path).mode & 0o777
      assert_equal ["e1.key"], Dir.children(File.dirname(path))
    end
  end

  def test_key_files_that_cannot_be_used
    Dir.mktmpdir do |folder|
      path = File.join(folder, "k")
      assert_raises(Colonies::Refused) { Keys.load(path) }
      File.write(path, "#{'ab' * 32}\n", perm: 0o644)
      assert_match(/chmod 600/, assert_raises(Colonies::Refused) { Keys.load(path) }.message)
      File.chmod(0o600, path)
      assert_equal 64, Keys.load(path).identity.size
      File.write(path, "ab")
      assert_match(/#{path} holds no key/, assert_raises(Colonies::Refused) { Keys.load(path) }.message)
    end
  end

  def test_without_settings_it_says_where_they_come_from
    assert_match(/profile env/, assert_raises(Colonies::Refused) { Keys.for_executor(Settings.from_env({}).colony, "e1") }.message)
    assert_match(/profile env/, assert_raises(Colonies::Refused) { Settings.from_env({}).connect }.message)
  end
end
