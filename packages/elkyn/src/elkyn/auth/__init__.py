"""Authentication: tokens, issuers, users, admin keys, revocation and the audit log.

Layering: `errors` < `jws` (keys and signatures) < `claims` < `tokens` (signing and verifying) < `jwks`
(issuers' keys); `account_store` (users and secrets on disk) < `keys`, `revocations` < `users` <
`sessions` < `services` < `accounts`, `admin_accounts`, `administration` < `endpoints` (requests in, responses
out) < `authenticator` (all of it, for a server). HS256 needs only the standard library; RS256, ES256
and passwords need the extra `server`.
"""
