"""What people did, for those who have to know it later.

Rule: nothing here decides anything; who acts records it.
"""
