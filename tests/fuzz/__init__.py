"""Raw bytes at every method: nothing that anybody can send is a defect."""
