"""Who calls, and what they may see.

Rule: nothing here knows HTTP. A credential becomes one `Principal`; `Permissions` decides by it. Secrets are saved as
digests, and passwords as argon2id.
"""
