# frozen_string_literal: true

require "openssl"
require "securerandom"

module Colonies
  # Signed calls, joins and rotations in Ruby: what a client signs, and for tests what a server checks.
  #
  # Specified in protos/vectors/README.md, and held to its vectors by `make vectors`. Nothing but the standard library.
  module Signing
    KEY_HEADER = "colonies-public-key"
    TIME_HEADER = "colonies-time"
    NONCE_HEADER = "colonies-nonce"
    SIGNATURE_HEADER = "colonies-signature"

    NONCE_BYTES = 16
    MAX_SKEW_MS = 60_000
    MAX_PROOF_AGE_MS = 24 * 3600 * 1000
    FORMATS = {
      KEY_HEADER => /\A[0-9a-f]{64}\z/,
      TIME_HEADER => /\A(?:0|[1-9][0-9]{0,14})\z/,
      NONCE_HEADER => /\A[0-9a-f]{32}\z/,
      SIGNATURE_HEADER => /\A[0-9a-f]{128}\z/
    }.freeze

    # What stands before the 32 bytes of a private and of a public key in PKCS #8 and SPKI (RFC 8410).
    PRIVATE_DER = ["302e020100300506032b657004220420"].pack("H*").freeze
    PUBLIC_DER = ["302a300506032b6570032100"].pack("H*").freeze

    PRIME = 2**255 - 19
    ORDER = 2**252 + 27742317777372353535851937790883648493
    SIGN = 1 << 255
    Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
    SMALL_ORDER = [0, 1, Y_OF_ORDER_8, PRIME - Y_OF_ORDER_8, PRIME - 1].flat_map { |y| [y, y | SIGN] }.freeze

    # A value that cannot stand in a signed text.
    class NotALine < ArgumentError; end

    # An Ed25519 key: 32 private bytes, its public key and its identity.
    class PrivateKey
      attr_reader :public_key, :identity

      def initialize(seed)
        @key = OpenSSL::PKey.read(PRIVATE_DER + seed)
        @public_key = @key.public_to_der.byteslice(PUBLIC_DER.bytesize, 32)
        @identity = Signing.identity_of(@public_key)
      end

      def sign(text)
        @key.sign(nil, text)
      end
    end

    # A new key's agreement: to a membership, or to take over from another key.
    Proof = Struct.new(:public_key, :time_ms, :signature, :text, keyword_init: true)

    module_function

    # The identity that a raw public key is known by.
    def identity_of(public_key)
      OpenSSL::Digest.hexdigest("SHA3-256", public_key)
    end

    def now_ms
      Process.clock_gettime(Process::CLOCK_REALTIME, :millisecond)
    end

    # Signs a call; `body` is the request message just as it will be sent. Every call needs a nonce of its own.
    #
    # :metadata goes with the call; :digest is what receipts know it by.
    def sign_call(key, method:, audience:, body:, time_ms: now_ms, nonce: SecureRandom.hex(NONCE_BYTES))
      text = call_text(method: method, audience: audience, time_ms: time_ms, nonce: nonce, body: body)
      signature = key.sign(text)
      metadata = {
        KEY_HEADER => hex(key.public_key),
        TIME_HEADER => time_ms.to_s,
        NONCE_HEADER => nonce,
        SIGNATURE_HEADER => hex(signature)
      }
      { text: text, metadata: metadata, digest: call_digest(text, key.public_key, signature) }
    end

    # A new member's proof that it agrees to its membership; the role is "colony_owner" or "user".
    def prove_join(key, audience:, colony:, role:, name:, time_ms: now_ms)
      prove(key, time_ms, join_text(audience: audience, colony: colony, role: role, name: name, time_ms: time_ms))
    end

    # A new key's proof that it takes over from the key with the identity `old_key`.
    def prove_rotation(key, audience:, colony:, old_key:, time_ms: now_ms)
      prove(key, time_ms, rotate_text(audience: audience, colony: colony, old_key: old_key, time_ms: time_ms))
    end

    # The identity of a raw public key if it signed the text, else nil.
    def signer_of(public_key, signature, text)
      return nil unless public_key.bytesize == 32 && signature.bytesize == 64
      return nil unless sound?(public_key) && sound?(signature.byteslice(0, 32))
      return nil unless little_endian(signature.byteslice(32, 32)) < ORDER

      OpenSSL::PKey.read(PUBLIC_DER + public_key).verify(nil, signature, text) ? identity_of(public_key) : nil
    end

    # Who made a call, from its metadata as [name, value] pairs: an :identity and a :digest, or an :error with the reason.
    def check_call(metadata, method:, audience:, body:, now_ms:)
      given = metadata.group_by(&:first).transform_values { |pairs| pairs.map(&:last) }
      names = FORMATS.keys
      return { error: "SIGNATURE_MISSING" } if names.any? { |name| !given.key?(name) && !given.key?("#{name}-bin") }
      return { error: "SIGNATURE_MALFORMED" } unless names.all? { |name| well_formed?(given, name) }

      key, time, nonce, signature = names.map { |name| given[name].first }
      time_ms = Integer(time, 10)
      return { error: "SIGNATURE_STALE" } if (now_ms - time_ms).abs > MAX_SKEW_MS

      text = call_text(method: method, audience: audience, time_ms: time_ms, nonce: nonce, body: body)
      identity = signer_of(bytes(key), bytes(signature), text)
      return { error: "SIGNATURE_INVALID" } if identity.nil?

      { identity: identity, digest: call_digest(text, bytes(key), bytes(signature)) }
    rescue NotALine
      { error: "SIGNATURE_INVALID" }
    end

    # Who agreed to a membership: an :identity, or an :error_field.
    def check_join(proof, now_ms:, **values)
      check_proof(proof, now_ms) { |time_ms| join_text(**values, time_ms: time_ms) }
    end

    # Whose key takes over: an :identity, or an :error_field.
    def check_rotation(proof, now_ms:, **values)
      check_proof(proof, now_ms) { |time_ms| rotate_text(**values, time_ms: time_ms) }
    end

    def call_text(method:, audience:, time_ms:, nonce:, body:)
      text_of("colonies-call-v1", method, audience, time_ms, nonce, OpenSSL::Digest.hexdigest("SHA256", body))
    end

    def join_text(audience:, colony:, role:, name:, time_ms:)
      text_of("colonies-join-v1", audience, colony, role, name, time_ms)
    end

    def rotate_text(audience:, colony:, old_key:, time_ms:)
      text_of("colonies-rotate-v1", audience, colony, old_key, time_ms)
    end

    def text_of(*values)
      raise NotALine, "no value of a signed text may hold a line feed" if values.any? { |value| value.to_s.include?("\n") }

      values.map { |value| "#{value}\n" }.join.b
    end

    def call_digest(text, public_key, signature)
      OpenSSL::Digest.hexdigest("SHA256", text + public_key + signature)
    end

    def prove(key, time_ms, text)
      Proof.new(public_key: key.public_key, time_ms: time_ms, signature: key.sign(text), text: text)
    end

    def check_proof(proof, now_ms)
      return { error_field: "time_ms" } unless (now_ms - proof.time_ms).between?(-MAX_SKEW_MS, MAX_PROOF_AGE_MS)

      identity = signer_of(proof.public_key, proof.signature, yield(proof.time_ms))
      identity.nil? ? { error_field: "signature" } : { identity: identity }
    rescue NotALine
      { error_field: "signature" }
    end

    def well_formed?(given, name)
      values = given.fetch(name, [])
      !given.key?("#{name}-bin") && values.one? && FORMATS[name].match?(values.first)
    end

    # Whether a point is encoded in the one right way, and not of small order.
    def sound?(encoded)
      number = little_endian(encoded)
      number % SIGN < PRIME && !SMALL_ORDER.include?(number)
    end

    def little_endian(bytes)
      hex(bytes.reverse).to_i(16)
    end

    def hex(bytes)
      bytes.unpack1("H*")
    end

    def bytes(hex)
      [hex].pack("H*")
    end

    private_class_method :call_text, :join_text, :rotate_text, :text_of, :call_digest, :prove, :check_proof,
                         :well_formed?, :sound?, :little_endian, :hex, :bytes
  end
end
