package colonies

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// vector is the client's part of one in protos/vectors: what is known, and what must come of it.
type vector struct {
	Name   string
	Client *struct {
		Seed      string `json:"test_private_key"`
		Method    string
		Audience  string
		BodyHex   string `json:"body_hex"`
		BodyTimes int    `json:"body_times"`
		TimeMs    int64  `json:"time_ms"`
		Nonce     string
		Colony    string
		Role      string
		Name      string
		OldKey    string `json:"old_key"`

		Refused   bool
		Identity  string
		PublicKey string `json:"public_key_hex"`
		Text      string
		Metadata  [][2]string
		Digest    string
		Signature string `json:"signature_hex"`
	}
}

// eachVector runs a test for each vector that a client is held to.
func eachVector(t *testing.T, kind string, test func(*testing.T, vector, PrivateKey)) {
	file, err := os.ReadFile(filepath.Join("..", "..", "protos", "vectors", kind+"_vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var document struct{ Vectors []vector }
	if err := json.Unmarshal(file, &document); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, one := range document.Vectors {
		if one.Client == nil {
			continue
		}
		count++
		key, err := KeyFromHex(one.Client.Seed)
		if err != nil {
			t.Fatal(err)
		}
		one := one
		t.Run(one.Name, func(t *testing.T) { test(t, one, key) })
	}
	if count < 3 {
		t.Fatalf("only %d vectors in %s", count, kind)
	}
}

func checkText(t *testing.T, one vector, text []byte, err error) (refused bool) {
	if one.Client.Refused {
		if !errors.Is(err, ErrNotSignable) {
			t.Fatalf("not refused: %v", err)
		}
		return true
	}
	if err != nil || string(text) != one.Client.Text {
		t.Fatalf("%q, %v", text, err)
	}
	return false
}

func TestIdentities(t *testing.T) {
	eachVector(t, "identity", func(t *testing.T, one vector, key PrivateKey) {
		if got := hex.EncodeToString(key.PublicKey()); got != one.Client.PublicKey {
			t.Errorf("public key %s", got)
		}
		if got := key.Identity(); got != one.Client.Identity {
			t.Errorf("identity %s", got)
		}
	})
}

func TestSignedCalls(t *testing.T) {
	eachVector(t, "call", func(t *testing.T, one vector, key PrivateKey) {
		given := one.Client
		body, err := hex.DecodeString(given.BodyHex)
		if err != nil {
			t.Fatal(err)
		}
		call := CallText{given.Method, given.Audience, given.TimeMs, given.Nonce, bytes.Repeat(body, given.BodyTimes)}
		text, err := call.Bytes()
		if checkText(t, one, text, err) {
			return
		}
		signed, err := key.SignCall(call)
		if err != nil {
			t.Fatal(err)
		}
		var metadata []string
		for _, entry := range given.Metadata {
			metadata = append(metadata, entry[0], entry[1])
		}
		if !reflect.DeepEqual(signed, SignedCall{metadata, given.Digest}) {
			t.Errorf("%v", signed)
		}
	})
}

func TestProofsOfJoining(t *testing.T) {
	eachVector(t, "join", func(t *testing.T, one vector, key PrivateKey) {
		given := one.Client
		join := JoinText{given.Audience, given.Colony, given.Role, given.Name, given.TimeMs}
		text, err := join.Bytes()
		if checkText(t, one, text, err) {
			return
		}
		proof, err := key.ProveJoin(join)
		if err != nil || hex.EncodeToString(proof.Signature) != given.Signature {
			t.Errorf("%v, %v", proof, err)
		}
	})
}

func TestProofsOfRotation(t *testing.T) {
	eachVector(t, "rotation", func(t *testing.T, one vector, key PrivateKey) {
		given := one.Client
		rotation := RotationText{given.Audience, given.Colony, given.OldKey, given.TimeMs}
		text, err := rotation.Bytes()
		if checkText(t, one, text, err) {
			return
		}
		proof, err := key.ProveRotation(rotation)
		if err != nil || hex.EncodeToString(proof.Signature) != given.Signature {
			t.Errorf("%v, %v", proof, err)
		}
	})
}

func TestNoncesHaveThePrefixThatIsAskedFor(t *testing.T) {
	for _, prefix := range []string{"", "0123456789abcdef"} {
		one, err := newNonce(prefix)
		if err != nil {
			t.Fatal(err)
		}
		other, err := newNonce(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if len(one) != 32 || one[:len(prefix)] != prefix || one == other {
			t.Errorf("%s and %s", one, other)
		}
	}
}
