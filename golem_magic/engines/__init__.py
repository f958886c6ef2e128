"""How each cluster starts, reports and stops worker processes."""
