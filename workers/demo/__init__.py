"""`mandate demo`: a shop, an agent, its worker and their story."""
