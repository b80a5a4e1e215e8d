"""EAS: trained once, then an architecture for any task and latency budget by inference."""
