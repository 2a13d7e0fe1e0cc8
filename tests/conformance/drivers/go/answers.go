package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"

	"colonies"
	"colonies/build/schedulerv1"
)

func hello() object {
	return object{"language": "go", "version": runtime.Version()}
}

func sign(given command) (object, error) {
	key, err := keyOf(given.Seed)
	if err != nil {
		return nil, err
	}
	switch given.Do {
	case "identity":
		return object{"public_key": hex.EncodeToString(key.PublicKey()), "identity": key.Identity()}, nil
	case "sign_call":
		return signCall(key, given)
	case "prove_join":
		proof, err := key.ProveJoin(colonies.JoinText{
			Audience: given.Audience, Colony: given.Colony, Role: given.Role, Name: given.Name, TimeMs: given.TimeMs,
		})
		return object{"signature": hex.EncodeToString(proof.GetSignature())}, err
	default:
		proof, err := key.ProveRotation(colonies.RotationText{
			Audience: given.Audience, Colony: given.Colony, OldKey: given.OldKey, TimeMs: given.TimeMs,
		})
		return object{"signature": hex.EncodeToString(proof.GetSignature())}, err
	}
}

func signCall(key colonies.PrivateKey, given command) (object, error) {
	body, err := hex.DecodeString(given.Body)
	if err != nil {
		return nil, err
	}
	if given.BodyTimes != nil {
		body = bytes.Repeat(body, *given.BodyTimes)
	}
	signed, err := key.SignCall(colonies.CallText{
		Method: given.Method, Audience: given.Audience, TimeMs: given.TimeMs, Nonce: given.Nonce, Body: body,
	})
	if err != nil {
		return nil, err
	}
	metadata := object{}
	for at := 0; at < len(signed.Metadata); at += 2 {
		metadata[signed.Metadata[at]] = signed.Metadata[at+1]
	}
	return object{"metadata": metadata, "digest": signed.Digest}, nil
}

func encode(given command) (object, error) {
	var own any
	var err error
	switch {
	case given.Bytes != nil:
		own, err = hex.DecodeString(*given.Bytes)
	case given.JSON != nil:
		own, err = fromJSON(*given.JSON)
	default:
		err = errors.New("there is nothing to encode")
	}
	if err != nil {
		return nil, err
	}
	value, err := colonies.Encode(own)
	if err != nil {
		return nil, err
	}
	return object{"media_type": value.MediaType, "data": hex.EncodeToString(value.Data)}, nil
}

func decode(given command) (object, error) {
	data, err := hex.DecodeString(given.Data)
	if err != nil {
		return nil, err
	}
	own, err := colonies.Decode(&schedulerv1.Value{MediaType: given.MediaType, Data: data})
	if err != nil {
		return nil, err
	}
	switch decoded := own.(type) {
	case []byte:
		return object{"bytes": hex.EncodeToString(decoded)}, nil
	case *schedulerv1.Value:
		return object{"media_type": decoded.MediaType, "bytes": hex.EncodeToString(decoded.Data)}, nil
	}
	text, err := toJSON(own)
	return object{"json": text}, err
}

// fromJSON is Go's own value for a JSON text.
func fromJSON(text string) (any, error) {
	return colonies.Decode(&schedulerv1.Value{Data: []byte(text)})
}

func toJSON(own any) (string, error) {
	value, err := colonies.Encode(own)
	return string(value.GetData()), err
}
