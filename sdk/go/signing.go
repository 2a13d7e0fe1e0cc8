package colonies

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/crypto/sha3"

	"colonies/build/authv1"
)

// The metadata of a signed call (protos/vectors/README.md).
const (
	KeyHeader       = "colonies-public-key"
	TimeHeader      = "colonies-time"
	NonceHeader     = "colonies-nonce"
	SignatureHeader = "colonies-signature"
)

const nonceBytes = 16

// ErrNotSignable says that a value cannot stand in a text that is signed.
var ErrNotSignable = errors.New("no value of a signed text may hold a line feed: it would read as two")

// PrivateKey is an Ed25519 key.
type PrivateKey struct {
	key ed25519.PrivateKey
}

// NewKey makes a key from the operating system's random source.
func NewKey() (PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return PrivateKey{key}, err
}

// KeyFromSeed is the key with these 32 private bytes.
func KeyFromSeed(seed []byte) (PrivateKey, error) {
	if len(seed) != ed25519.SeedSize {
		return PrivateKey{}, fmt.Errorf("a private key is %d bytes, not %d", ed25519.SeedSize, len(seed))
	}
	return PrivateKey{ed25519.NewKeyFromSeed(seed)}, nil
}

// PublicKey is the public half: 32 bytes.
func (k PrivateKey) PublicKey() []byte {
	return k.key.Public().(ed25519.PublicKey)
}

// Identity is what the services know the key by.
func (k PrivateKey) Identity() string {
	return IdentityOf(k.PublicKey())
}

// String never shows the key itself.
func (k PrivateKey) String() string {
	return "key of " + k.Identity()
}

// GoString never shows the key itself.
func (k PrivateKey) GoString() string {
	return k.String()
}

// IdentityOf is the identity (64 hex digits) of a raw public key.
func IdentityOf(publicKey []byte) string {
	digest := sha3.Sum256(publicKey)
	return hex.EncodeToString(digest[:])
}

// CallText is what the caller of an RPC signs; Body is the request message just as it will be sent.
type CallText struct {
	Method   string
	Audience string
	TimeMs   int64
	Nonce    string
	Body     []byte
}

// Bytes is the text itself.
func (t CallText) Bytes() ([]byte, error) {
	body := sha256.Sum256(t.Body)
	return textOf("colonies-call-v1", t.Method, t.Audience, decimal(t.TimeMs), t.Nonce, hex.EncodeToString(body[:]))
}

// JoinText is what a new colony owner or user signs to agree to its membership; Role is "colony_owner" or "user".
type JoinText struct {
	Audience string
	Colony   string
	Role     string
	Name     string
	TimeMs   int64
}

// Bytes is the text itself.
func (t JoinText) Bytes() ([]byte, error) {
	return textOf("colonies-join-v1", t.Audience, t.Colony, t.Role, t.Name, decimal(t.TimeMs))
}

// RotationText is what a new key signs to take over from the key with the identity OldKey.
type RotationText struct {
	Audience string
	Colony   string
	OldKey   string
	TimeMs   int64
}

// Bytes is the text itself.
func (t RotationText) Bytes() ([]byte, error) {
	return textOf("colonies-rotate-v1", t.Audience, t.Colony, t.OldKey, decimal(t.TimeMs))
}

func textOf(values ...string) ([]byte, error) {
	var text bytes.Buffer
	for _, value := range values {
		text.WriteString(value)
		text.WriteByte('\n')
	}
	if bytes.Count(text.Bytes(), []byte("\n")) != len(values) {
		return nil, ErrNotSignable
	}
	return text.Bytes(), nil
}

func decimal(number int64) string {
	return strconv.FormatInt(number, 10)
}

// SignedCall is what goes with a call: Metadata holds names and values in turn, and receipts know the call by its Digest.
type SignedCall struct {
	Metadata []string
	Digest   string
}

// SignCall signs a call. Every call needs a nonce of its own: 32 lower-case hex digits.
func (k PrivateKey) SignCall(call CallText) (SignedCall, error) {
	text, err := call.Bytes()
	if err != nil {
		return SignedCall{}, err
	}
	signature := ed25519.Sign(k.key, text)
	return SignedCall{
		Metadata: []string{
			KeyHeader, hex.EncodeToString(k.PublicKey()),
			TimeHeader, decimal(call.TimeMs),
			NonceHeader, call.Nonce,
			SignatureHeader, hex.EncodeToString(signature),
		},
		Digest: CallDigest(text, k.PublicKey(), signature),
	}, nil
}

// CallDigest is what receipts know a signed call by.
func CallDigest(text, publicKey, signature []byte) string {
	digest := sha256.New()
	for _, part := range [][]byte{text, publicKey, signature} {
		digest.Write(part)
	}
	return hex.EncodeToString(digest.Sum(nil))
}

// ProveJoin is the proof that this key agrees to a membership; whoever adds the member sends it.
func (k PrivateKey) ProveJoin(join JoinText) (*authv1.JoinProof, error) {
	text, err := join.Bytes()
	return k.proof(text, join.TimeMs, err)
}

// ProveRotation is the proof that this key takes the place of another one (AuthService.RotateKey).
func (k PrivateKey) ProveRotation(rotation RotationText) (*authv1.JoinProof, error) {
	text, err := rotation.Bytes()
	return k.proof(text, rotation.TimeMs, err)
}

func (k PrivateKey) proof(text []byte, timeMs int64, err error) (*authv1.JoinProof, error) {
	if err != nil {
		return nil, err
	}
	return &authv1.JoinProof{PublicKey: k.PublicKey(), TimeMs: timeMs, Signature: ed25519.Sign(k.key, text)}, nil
}

// newNonce is 16 random bytes as hex digits, of which the cluster may ask for the first ones.
func newNonce(prefix string) (string, error) {
	random := make([]byte, nonceBytes-len(prefix)/2)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	return prefix + hex.EncodeToString(random), nil
}
