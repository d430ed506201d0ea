"""What every room stands on: identity, time, canonical bytes, strict reading, redaction, errors. No AWS here."""
