"""Files from elsewhere: fetched so that they are whole and right, unpacked so that nothing lands outside.

`download.fetch` and `archives.unpack` are the doors.
"""
