"""Compute on a Ray cluster of the zone: actors that hold shards of an order's windows (Ray core alone).

Ray pickles what it moves (cloudpickle) between the zone's process and its workers, inside the zone. None of that is
stored, and none of it crosses: what comes back to the zone's process is bytes and numbers, checked as a candidate is
checked. Whoever can speak to a cluster runs code on it: so it takes a token, and listens inside the zone alone.
"""
