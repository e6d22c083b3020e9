// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package operatorkey

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// module is one loaded PKCS#11 library. A login counts for all sessions of
// this process with the token, so sessions stay open until close.
type module struct{ ctx *pkcs11.Ctx }

func openModule(path string) (*module, error) {
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("loading the module %s: it is missing or no PKCS#11 library; module-path must name the one of the token's vendor", path)
	}
	if err := ctx.Initialize(); err != nil {
		ctx.Destroy()
		return nil, fmt.Errorf("starting the module %s: %w", path, err)
	}
	return &module{ctx: ctx}, nil
}

func (m *module) close() error {
	err := m.ctx.Finalize() // ends every session and login
	m.ctx.Destroy()
	if err != nil {
		return fmt.Errorf("stopping a PKCS#11 module: %w", err)
	}
	return nil
}

// signer finds the one private key that u names and its public key.
func (m *module) signer(u *uri, pin func() (string, error)) (crypto.Signer, error) {
	slot, info, err := m.slot(u)
	if err != nil {
		return nil, err
	}
	session, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	k := &tokenKey{ctx: m.ctx, session: session}
	if info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0 {
		if k.pin, err = m.login(session, info, pin); err != nil {
			return nil, err
		}
	}
	if k.private, err = m.find(session, pkcs11.CKO_PRIVATE_KEY, u.object, u.id); err != nil {
		return nil, err
	}
	if k.public, err = m.publicOf(session, u, k.private); err != nil {
		return nil, err
	}
	always, err := m.ctx.GetAttributeValue(session, k.private, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_AUTHENTICATE, nil)})
	k.loginEachTime = err == nil && len(always) == 1 && len(always[0].Value) == 1 && always[0].Value[0] != 0
	return k, nil
}

func (m *module) public(u *uri) (crypto.PublicKey, error) {
	slot, _, err := m.slot(u)
	if err != nil {
		return nil, err
	}
	session, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	object, err := m.find(session, pkcs11.CKO_PUBLIC_KEY, u.object, u.id)
	if err != nil {
		return nil, err
	}
	return m.decodePublic(session, object)
}

// slot finds the one token that u names.
func (m *module) slot(u *uri) (uint, pkcs11.TokenInfo, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return 0, pkcs11.TokenInfo{}, fmt.Errorf("listing the tokens: %w", err)
	}
	var found []uint
	var info pkcs11.TokenInfo
	for _, slot := range slots {
		t, err := m.ctx.GetTokenInfo(slot)
		if err != nil {
			continue // a token just pulled out is not the one
		}
		if matches(u.token, t.Label) && matches(u.manufacturer, t.ManufacturerID) && matches(u.serial, t.SerialNumber) && matches(u.model, t.Model) {
			found, info = append(found, slot), t
		}
	}
	switch len(found) {
	case 0:
		return 0, info, fmt.Errorf("none of the %d tokens present is the one named; is it plugged in, and is this its module?", len(slots))
	case 1:
		return found[0], info, nil
	}
	return 0, info, fmt.Errorf("%d tokens have this name; add serial to the URI", len(found))
}

func matches(want, have string) bool { return want == "" || want == have }

// login asks for the PIN only now, and never spends the last try: a wrong one
// would lock the token.
func (m *module) login(session pkcs11.SessionHandle, info pkcs11.TokenInfo, ask func() (string, error)) (string, error) {
	switch {
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return "", errors.New("the token is locked after too many wrong PINs; unlock it with its vendor's tool")
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return "", errors.New("the token has one try left before it locks; log in once with its vendor's tool")
	}
	pin, err := ask()
	if err != nil {
		return "", err
	}
	err = m.ctx.Login(session, pkcs11.CKU_USER, pin)
	switch {
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)): // for another key of this ring
		return pin, nil
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)):
		return "", fmt.Errorf("the token refused the PIN: %w; it locks after a few wrong ones", err)
	case err != nil:
		return "", fmt.Errorf("logging in: %w", err)
	}
	return pin, nil
}

// find returns the one object of a class with these names.
func (m *module) find(session pkcs11.SessionHandle, class uint, label string, id []byte) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	if len(id) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	kind := map[uint]string{pkcs11.CKO_PRIVATE_KEY: kindPrivate, pkcs11.CKO_PUBLIC_KEY: kindPublic}[class]
	if err := m.ctx.FindObjectsInit(session, template); err != nil {
		return 0, fmt.Errorf("looking for the %s key: %w", kind, err)
	}
	objects, _, err := m.ctx.FindObjects(session, 2)
	if err = errors.Join(err, m.ctx.FindObjectsFinal(session)); err != nil {
		return 0, fmt.Errorf("looking for the %s key: %w", kind, err)
	}
	switch len(objects) {
	case 0:
		return 0, fmt.Errorf("the token has no %s key of this name", kind)
	case 1:
		return objects[0], nil
	}
	return 0, fmt.Errorf("the token has several %s keys of this name; name it with id too", kind)
}

// publicOf finds the public key beside a private one: it has the same id.
func (m *module) publicOf(session pkcs11.SessionHandle, u *uri, private pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	label, id := u.object, u.id
	attrs, err := m.ctx.GetAttributeValue(session, private, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
	if err == nil && len(attrs) == 1 && len(attrs[0].Value) > 0 {
		label, id = "", attrs[0].Value
	}
	object, err := m.find(session, pkcs11.CKO_PUBLIC_KEY, label, id)
	if err != nil {
		return nil, fmt.Errorf("%w; signing needs the public key beside the private one", err)
	}
	return m.decodePublic(session, object)
}

func (m *module) decodePublic(session pkcs11.SessionHandle, object pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	attrs, err := m.ctx.GetAttributeValue(session, object, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil),
	})
	if err != nil || len(attrs) != 3 {
		return nil, errors.New("the key is on no elliptic curve; make one on P-256, or an Ed25519 one where the token has it")
	}
	return decodeECPublic(attrs[1].Value, attrs[2].Value)
}
