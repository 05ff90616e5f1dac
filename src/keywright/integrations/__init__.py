"""Inside a host's application: one file a framework, and what all of them stand on. Each needs its extra alone."""
