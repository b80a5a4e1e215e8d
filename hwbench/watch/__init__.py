"""Watch: pages and figures of what was measured."""
