# frozen_string_literal: true

# Answers the questions of conformance.py with sdk/ruby/colonies/signing.rb: a JSON object a line, in and out.

require "json"
require_relative "../../../sdk/ruby/colonies/signing"

Signing = Colonies::Signing

def bytes(hex) = [hex].pack("H*")

def hex(bytes) = bytes.unpack1("H*")

def only(given, *names) = names.to_h { |name| [name, given.fetch(name.to_s)] }

def call(given) = { **only(given, :method, :audience), body: bytes(given["body_hex"]) * given["body_times"] }

def join(given) = only(given, :audience, :colony, :role, :name)

def rotation(given) = only(given, :audience, :colony, :old_key)

def signed(key, proof)
  { identity: key.identity, text: proof.text, public_key_hex: hex(proof.public_key), signature_hex: hex(proof.signature) }
end

def proof(given)
  parts = { public_key: bytes(given["public_key_hex"]), signature: bytes(given["signature_hex"]) }
  Signing::Proof.new(time_ms: given["time_ms"], **parts)
end

def answer(ask, given)
  key = Signing::PrivateKey.new(bytes(given["test_private_key"])) if given.key?("test_private_key")
  case ask
  when "identity" then { public_key_hex: hex(key.public_key), identity: key.identity }
  when "sign_call"
    made = Signing.sign_call(key, **call(given), **only(given, :time_ms, :nonce))
    { **made, metadata: made[:metadata].to_a, identity: key.identity }
  when "sign_join" then signed(key, Signing.prove_join(key, **join(given), **only(given, :time_ms)))
  when "sign_rotation" then signed(key, Signing.prove_rotation(key, **rotation(given), **only(given, :time_ms)))
  when "check_call" then Signing.check_call(given["metadata"], **call(given), **only(given, :now_ms))
  when "check_join" then Signing.check_join(proof(given), **join(given), **only(given, :now_ms))
  when "check_rotation" then Signing.check_rotation(proof(given), **rotation(given), **only(given, :now_ms))
  else raise "unknown question #{ask}"
  end
rescue Signing::NotALine
  { refused: true }
end

$stdin.each_line do |line|
  question = JSON.parse(line)
  puts JSON.generate(answer(question["ask"], question["given"]))
end
