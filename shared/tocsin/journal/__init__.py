"""The journal: one append-only Merkle log of everything that was done, decided, refused or changed.

entries     what one entry holds (digests and pseudonyms only) and its canonical bytes
tree        RFC 6962 hashing in the C2SP tlog-tiles layout, inclusion and consistency proofs (RFC 9162)
notes       C2SP signed-note checkpoints and cosignatures
signatures  Ed25519 and ECDSA P-256 with the standard library only
sequencer   how entries get their numbers, without fork or gap wherever a run is killed
audit       what readers are shown: pages, proofs, tiles
verify      offline verification that names the place of the first bad byte
"""
