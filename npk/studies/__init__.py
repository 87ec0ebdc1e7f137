"""A study: from networks and samples to a page that says what the gates have learnt.

The gates of a network were trained somewhere. A kernel machine is fitted to a few **fresh** samples,
which no weight has seen, on the kernel of these gates; on that of the same network before training;
and on what is known without any of it. The difference is what the gates have learnt.
"""
