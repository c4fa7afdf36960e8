"""Files on this machine, objects of a store and members of archives: how they are named, and one way to read them."""
