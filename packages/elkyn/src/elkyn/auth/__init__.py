"""Access control: a credential proves a principal, and an authorizer says what the principal may do.

    credential          what a client sends: an ID token, an admin key, the admin token, or nothing
      -> Authenticator    checks signature, issuer, expiry and revocation (`StoreAuth` for a store
                          without a server)
    principal           who the client is: `Principal`, the variable `auth` of rules; an admin, or
                        `UNAUTHENTICATED`
      -> StoreAuth        has the rules of one store
    authorizer          `Authorizer`: a principal in one store; raises `Denied`. Its `write_check` runs
                        in the write's transaction, its `check_stream` returns the read set after
                        whose change `SubscriptionAuthorizer` checks an open subscription again

Layering: `errors` < `jws` (keys and signatures) < `claims` < `tokens` (signing and verifying) < `jwks`
(issuers' keys); `account_store` (users and secrets on disk) < `keys`, `revocations` < `users` <
`sessions` < `services` < `accounts`, `admin_accounts`, `administration` < `endpoints` (requests in,
responses out) < `authenticator` (all of it, for a server). `principal` < `authorizer` < `store_auth` <
`subscription_authorizer` need no server. HS256 needs only the standard library; RS256, ES256 and
passwords need the extra `server`.
"""
