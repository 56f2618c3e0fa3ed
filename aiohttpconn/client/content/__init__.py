"""Bodies of requests and responses: forms, JSON, multipart; content codings and charsets."""
